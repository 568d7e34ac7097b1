"""Machine code for the CPU, by LLVM: from kernel steps to a program that runs as one native call.

From the ground up: `command` (what a native kernel is), `lanes` (vectors), `maths`, `loops`, `indexing` and `products`
(the kernels), `runtime` (the call that runs them), `codegen` (the table of all emitters), `engine` with `cache` (from
variants to addresses), `selection` (from steps to commands), `loading` (from programs to launches).
"""
