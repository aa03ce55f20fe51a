"""What the trainings have left on the disk of this computer: their cases, pictures, tables and checkpoints."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..runs import openRuns, recallRun, removeRun, runsFolder

_YOUNG_S = 24 * 3600


@dataclass(frozen=True)
class Run:
    """The folder of a training.

    Args:
        folder: where it lies.
        size: in bytes.
        isOpen: whether it can go on, waits for a decision, or may be at work in another window.
    """

    folder: Path
    size: int
    isOpen: bool


def readRuns(now: float | None = None) -> list[Run]:
    """Return the folders of all trainings that were started here.

    Args:
        now: time in seconds since the epoch, None for the present.
    """
    root, now = runsFolder(), time.time() if now is None else now
    isOpen = set(openRuns())
    runs = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        size, changed = _measure(folder)
        # One that has no checkpoint yet can only be told by its age from one that was given up.
        young = now - changed < _YOUNG_S and not recallRun(folder)["settled"]
        runs.append(Run(folder, size, folder in isOpen or young))
    return runs


def _measure(folder: Path) -> tuple[int, float]:
    """Bytes of all files below a folder, and when the newest of all there was changed.

    The application waits for it, so it asks the system as little as it can; what vanishes meanwhile does not count.
    """
    size, changed, waiting = 0, 0.0, [str(folder)]
    with suppress(OSError):
        changed = folder.stat().st_mtime
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                changed = max(changed, facts.st_mtime)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    size += facts.st_size
    return size, changed


def removeRuns(runs: Iterable[Run]) -> int:
    """Remove folders of trainings; returns how many bytes are free again."""
    freed = 0
    for run in runs:
        removeRun(run.folder)
        freed += 0 if run.folder.exists() else run.size
    return freed
