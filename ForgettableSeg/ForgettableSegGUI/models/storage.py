"""What the trainings have left on the disk of this computer: their cases, pictures, tables and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterable
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
        facts = [path.stat() for path in (folder, *folder.rglob("*")) if path.exists()]
        # One that has no checkpoint yet can only be told by its age from one that was given up.
        young = any(now - each.st_mtime < _YOUNG_S for each in facts) and not recallRun(folder)["settled"]
        runs.append(Run(folder, sum(each.st_size for each in facts), folder in isOpen or young))
    return runs


def removeRuns(runs: Iterable[Run]) -> int:
    """Remove folders of trainings; returns how many bytes are free again."""
    freed = 0
    for run in runs:
        removeRun(run.folder)
        freed += 0 if run.folder.exists() else run.size
    return freed
