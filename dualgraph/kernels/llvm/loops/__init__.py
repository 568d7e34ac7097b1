"""Kernels of a `Loop`: scalar code over a domain, with folds.

In the order of the data: `nest` (axes and strides), `variants` (what is fixed in the code), `selection` (from a step to a
command), `walks` (what is computed when), then the code: `frame` (function, loops), `operands` (memory), `values` (scalar
code), `folds` (the canonical order), and the three forms `flat`, `rows` and `columns`.
"""
