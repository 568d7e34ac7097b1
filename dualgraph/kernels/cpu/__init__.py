"""What only the CPU has: the pool of threads."""
