"""Tools for the Triton kernels: compile, estimate, verify and time every configuration."""
