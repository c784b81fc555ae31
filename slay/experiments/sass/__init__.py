"""Machine code of NVIDIA GPUs: read, run with the integers alone, and timed, without a GPU."""
