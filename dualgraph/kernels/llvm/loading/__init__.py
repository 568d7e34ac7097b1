"""Programs as something to call, in this process.

`machine` has the addresses of CPython and NumPy, `builtin` makes a plan callable, `plan` writes it, `loaded` is a program
with its launch.
"""
