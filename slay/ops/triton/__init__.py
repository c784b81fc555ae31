"""Attention by Triton kernels, one module per step. Start reading at `launch`."""
