"""Kernels run in Triton's interpreter here, which needs no GPU."""

import os

os.environ["TRITON_INTERPRET"] = "1"
