"""Products of matrices by BLAS. `selection` first, then `code`."""
