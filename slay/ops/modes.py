"""The modes that a caller of PyTorch may be in, and what must not depend on them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

T = TypeVar("T")


def undisturbed(make: Callable[[], T]) -> T:
    """What `make` returns where none of the caller's modes is on.

    What is drawn, or kept for later calls, is made so: it is then the same whatever the default
    dtype and device are, in inference, under autocast, and inside fake, functional and subclass
    modes. Those belong to a thread, and a new one has none; the default dtype is the process's.
    """
    if torch.compiler.is_compiling():
        return make()
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(make).result()
    finally:
        torch.set_default_dtype(dtype)


def remembered(make: Callable[..., T]) -> Callable[..., T]:
    """A function whose results are made undisturbed, and kept for later calls."""

    @lru_cache(maxsize=64)
    @wraps(make)
    def found(*arguments: Any, **options: Any) -> T:
        return undisturbed(partial(make, *arguments, **options))

    return found


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which autocast changes no dtypes of a device, if it ever would there."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def transformed() -> bool:
    """Whether `torch.func` or forward mode is at work: they follow nothing but pure operations."""
    functional = torch._C._are_functorch_transforms_active()
    return functional or forward_ad._current_level >= 0


def readable(tensor: Tensor) -> bool:
    """Whether a tensor's numbers can be looked at: it may only stand for those of later calls."""
    return not torch.compiler.is_compiling() and not stands_in(tensor)


def stands_in(tensor: Tensor) -> bool:
    """Whether a tensor has a shape and no numbers, or is one of a transform's."""
    return transformed() or tensor.is_meta or isinstance(tensor, FakeTensor)


def in_one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, tensors of several dtypes in the one that PyTorch's own attention takes."""
    device = tensors[0].device.type
    if len({t.dtype for t in tensors}) == 1 or not torch.amp.is_autocast_available(device):
        return tensors
    if not torch.is_autocast_enabled(device):
        return tensors
    to = torch.get_autocast_dtype(device)
    kept = (torch.float64, to)  # autocast leaves double precision alone
    return tuple(t if t.dtype in kept or not t.is_floating_point() else t.to(to) for t in tensors)
