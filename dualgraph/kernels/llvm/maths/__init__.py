"""Scalar instructions as machine code, for vectors of any width.

`arithmetic` has what the functions share, `exp`, `log`, `trig` and `division` are the functions, `instructions` the table
of all instructions, with those that need no function.
"""
