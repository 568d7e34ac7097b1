"""What every operation, both modes and all that stands on them speak: the floor below the operations.

`op.py` has `Op` and `Call`, `mode.py` what is asked of a mode and how one is chosen, `tensor.py` what tensors of both
modes have in common, `value.py` those that hold their elements, `layout.py` how these lie in a storage; `arrays.py`,
`arguments.py` and `broadcast.py` are the doors for what is passed; `observed.py` reports what a trace reads, `stepped.py`
keeps generators in a context; `types.py` has the words of signatures.
"""
