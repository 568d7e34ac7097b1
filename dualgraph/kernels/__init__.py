"""Kernels: arrays in, arrays out; no gradients, no graphs."""
