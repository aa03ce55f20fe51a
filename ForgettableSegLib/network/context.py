"""Neighbouring slices as extra channels of a 2D network: it sees a little of the third dimension at the cost of 2D."""

from __future__ import annotations

import numpy as np


def with_neighbours(image: np.ndarray, first: int, last: int, context_slices: int) -> np.ndarray:
    """Slices of a case, each with those before and after it.

    Args:
        image: (C, S, H, W), an array or a memory map, of which only the slices needed are read.
        first, last: the slices wanted, `last` not included.
        context_slices: k, neighbours on each side; at the ends of the case the last slice is repeated.

    Returns:
        (last - first, C * (2k + 1), H, W), float32, in memory of its own; channels of the image outermost.
    """
    offsets = np.arange(-context_slices, context_slices + 1)
    # What is read is one block; the slices that neighbours share are read once.
    start, stop = max(0, first - context_slices), min(image.shape[1], last + context_slices)
    block = np.array(image[:, start:stop], dtype=np.float32)
    wanted = np.clip(np.arange(first, last)[:, None] + offsets, start, stop - 1) - start
    stacked = block[:, wanted].transpose(1, 0, 2, 3, 4)
    return stacked.reshape(last - first, -1, *image.shape[2:])
