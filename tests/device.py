"""The device of a test: a CPU, at toy sizes, and a GPU, if there is one."""

import os

import pytest
import torch

on_gpu = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", on_gpu])
def device(request):
    """Where a test computes: on both."""
    yield from _usable(request)


@pytest.fixture(params=[on_gpu])
def gpu(request):
    """Where a test computes that is about GPUs alone."""
    yield from _usable(request)


def _usable(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA GPU that PyTorch sees")
    if request.param == "cuda" and os.environ["TRITON_INTERPRET"] == "1":
        pytest.skip("kernels are interpreted here; slay gpu --steps tests compiles them")
    yield torch.device(request.param)
    if request.param == "cuda":
        _end_if_lost(request.node.nodeid)


def _end_if_lost(name):
    """End this process where a test has broken the GPU's context: all others would fail with it."""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        text = f"{name}: the GPU is lost to this process ({str(error).splitlines()[0]})"
        if "PYTEST_XDIST_WORKER" in os.environ:
            os.write(2, f"{text}\n".encode())
            os._exit(1)  # another worker takes its place
        pytest.exit(text, returncode=1)
