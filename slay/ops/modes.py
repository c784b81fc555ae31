"""PyTorch's modes (autocast, inference, compilation, torch.func) and isolation from them."""

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
    """Call `make` with none of the caller's modes active, and return its result.

    Used for random draws and cached values, which must not depend on the default dtype and device,
    inference mode, autocast, or fake, functional and subclass modes. Those are thread-local, so
    `make` runs in a new thread; the default dtype is global and is set to float32.
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
    """Cache a function's results, which are computed `undisturbed`."""

    @lru_cache(maxsize=64)
    @wraps(make)
    def found(*arguments: Any, **options: Any) -> T:
        return undisturbed(partial(make, *arguments, **options))

    return found


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Context manager that disables autocast on a device, if the device supports autocast."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def transformed() -> bool:
    """Return True under `torch.func` or forward-mode AD, which support only pure operations."""
    functional = torch._C._are_functorch_transforms_active()
    return functional or forward_ad._current_level >= 0


def readable(tensor: Tensor) -> bool:
    """Return True if a tensor's values can be read: not while compiling, not if it `stands_in`."""
    return not torch.compiler.is_compiling() and not stands_in(tensor)


def stands_in(tensor: Tensor) -> bool:
    """Return True if a tensor has no values (meta, fake) or belongs to a function transform."""
    return transformed() or tensor.is_meta or isinstance(tensor, FakeTensor)


def in_one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, cast tensors of different dtypes to one, as PyTorch's attention does."""
    device = tensors[0].device.type
    if len({t.dtype for t in tensors}) == 1 or not torch.amp.is_autocast_available(device):
        return tensors
    if not torch.is_autocast_enabled(device):
        return tensors
    to = torch.get_autocast_dtype(device)
    kept = (torch.float64, to)  # autocast leaves double precision alone
    return tuple(t if t.dtype in kept or not t.is_floating_point() else t.to(to) for t in tensors)
