"""Benchmark and verification of GPU kernels, against competitors and hardware floors."""
