"""Time and memory: the experiments that measure them, and the benchmark of the kernels."""
