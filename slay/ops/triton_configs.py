"""Configurations of the kernels that Triton chooses among, once a device and shape class.

Its choice is kept on disk beside the compiled kernels. Each sums in a fixed order, so that results
do not vary from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import triton

INTERPRETED = bool(triton.knobs.runtime.interpret)
Launch = tuple["Tuned", tuple[Any, ...]]


def config(warps: int, stages: int, **tiles: int) -> triton.Config:
    return triton.Config(tiles, num_warps=warps, num_stages=stages)


class Tuned:
    """A kernel that is launched with the best of its configurations for a shape class.

    `key` names the arguments that tell classes apart, `M` among them; without configurations there
    is no choice.
    """

    def __init__(self, kernel: Any, key: list[str], *configs: triton.Config):
        self.kernel, self.configs, self.launch = kernel, list(configs), kernel
        if configs and not INTERPRETED:
            self.launch = triton.autotune(
                self.configs,
                key=key,
                prune_configs_by={"early_config_prune": _prune},
                cache_results=True,
            )(kernel)

    def __call__(self, grid: Any, *args: Any) -> None:
        if _recorded is not None:
            _recorded.append((self, args))
        elif INTERPRETED:  # one configuration will do
            named = dict(zip(self.kernel.arg_names, args, strict=False))
            self.kernel[grid](*args, **self.choice(named.get("M"))[0].kwargs)
        else:
            self.launch[grid](*args)

    def choice(self, M: Any) -> list[triton.Config]:
        """The configurations that fit into registers."""
        if not self.configs:
            return [triton.Config({})]
        return fitting(self.configs, M)


def fitting(configs: list[triton.Config], M: Any) -> list[triton.Config]:
    """Those whose blocks of tokens are not too many where they are wide."""
    return [c for c in configs if c.kwargs["T"] * M.width <= 64 * 128]


def _prune(configs: list[triton.Config], named: dict[str, Any], **more: Any) -> list[triton.Config]:
    return fitting(configs, {**named, **more}["M"])


_recorded: list[Launch] | None = None


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Note launches with their arguments instead of making them."""
    global _recorded
    _recorded = []
    try:
        yield _recorded
    finally:
        _recorded = None
