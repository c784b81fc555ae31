"""NVIDIA machine code (SASS): parsing, integer simulation and timing, without a GPU."""
