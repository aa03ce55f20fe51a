"""How much memory this process takes."""

from __future__ import annotations

import sys

import psutil


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes (of the computer, not of a graphics card)."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # here, because Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
