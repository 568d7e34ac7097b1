"""Kernels that read or write where an index says: gathers, scatters, range checks. `selection` first, then `code`."""
