"""Kernels that put rows in order. `selection` first, then `code`."""
