"""Kernels on a GPU, timed beside their competitors and the least that the machine allows."""
