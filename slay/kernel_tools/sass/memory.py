"""Cost of a warp's memory access: cycles of shared memory, sectors of global memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WARP = 32
Array = NDArray[Any]


def wavefronts(addresses: Array, there: Array, size: int) -> Array:
    """Cycles of each warp's access to shared memory, whose 32 banks deliver one word per cycle."""
    words = size // 4 or 1
    lanes = WARP // words  # served at once
    phases = np.repeat(there.reshape(-1, lanes), words, axis=1)
    first = (addresses.reshape(-1, lanes) // 4)[:, :, None]
    word = (first + np.arange(words, dtype=np.uint64)).reshape(len(phases), -1).astype(np.int64)
    word = np.sort(np.where(phases, word, -1), axis=1)
    new = word >= 0
    new[:, 1:] &= word[:, 1:] != word[:, :-1]
    banks = np.zeros((len(word), 32), np.int64)
    np.add.at(banks, (np.nonzero(new)[0], word[new] % 32), 1)
    return banks.max(1).reshape(-1, words).sum(1)


def matrix_wavefronts(addresses: Array, there: Array, size: int) -> Array:
    """The same for LDSM and STSM: rows of 16 bytes; eight threads hold a tile's addresses."""
    costs = []
    for n in range(size // 4):
        rows = slice(8 * n, 8 * n + 8)
        four, who = (np.tile(t[:, rows], (1, 4)) for t in (addresses, there))
        costs.append(wavefronts(four, who, 16) / 4)
    return np.stack(costs).sum(0)


def sectors(addresses: Array, there: Array, size: int) -> Array:
    """Number of 32-byte sectors of global memory that each warp's access touches."""
    piece = np.sort(np.where(there, (addresses // 32).astype(np.int64), -1), axis=1)
    new = piece >= 0
    new[:, 1:] &= piece[:, 1:] != piece[:, :-1]
    return new.sum(1)
