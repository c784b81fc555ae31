"""Attention by Triton kernels: a file a step. `launch` is where to begin reading."""
