"""The native code around kernels: one launch of a program, and what the pool's threads do.

`tables` says where things lie, `variants` names the two pieces of code; `emitter` has their idioms, `sharing` a command
cut over threads, `command_loop` all commands, `cells` variables that a launch reads and changes, `launch` the whole.
"""
