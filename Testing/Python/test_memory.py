"""The peak memory that jobs report."""

from __future__ import annotations

import numpy as np

from ForgettableSegLib.memory import peak_memory


def test_peak_memory_is_in_bytes_and_only_grows() -> None:
    block = np.ones(300 * 2**20, dtype=np.uint8)
    peak = peak_memory()
    assert block.nbytes < peak < 100 * block.nbytes
    del block
    assert peak_memory() >= peak
