"""Defaults of epsilon, which bounds the spherical Yat kernel x^2 / (2 + epsilon - 2x) by 1/epsilon.

Two, because they serve two purposes. In the library epsilon only keeps the kernel finite at x = 1.
Measurements compare approximations with the exact kernel: its peak there is the sharper and the
harder to approximate, the smaller epsilon is, and a larger one keeps single pairs of nearly
parallel vectors from deciding the error. Configurations of runs give theirs as `epsilon`.
"""

DEFAULT_EPSILON = 1e-6  # of mechanisms and Yat neurons
MEASURED_EPSILON = 1e-3  # of runs, `slay run` and `slay train`
