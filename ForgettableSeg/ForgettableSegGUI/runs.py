"""The folders of the trainings on this computer: what is in each, which can go on, which wait for a decision."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ForgettableSegLib.resources import user_dir

from .i18n import tr as _

_STATE_FILE = "panel.json"


def runsFolder() -> Path:
    """Return the folder of all runs that were started here."""
    return user_dir() / "runs"


def newRunFolder(name: str) -> Path:
    """Make a folder for a new run that no other run has; its name is plain ASCII, for some libraries want that.

    Raises:
        OSError: if it cannot be made.
    """
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name).strip("-") or "run"
    started = f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([started], (f"{started}-{number}" for number in itertools.count(2)))
    folder = runsFolder() / next(names)
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # another one of the same second
            folder = runsFolder() / next(names)
        else:
            return folder


def rememberRun(folder: Path, *, name: str, cases: Sequence[Mapping[str, Any]], classes: Mapping[str, int]) -> None:
    """Leave beside a run what the panel must know to go on with it after Slicer was closed."""
    _remember(folder, {"name": name, "cases": [dict(case) for case in cases], "classes": dict(classes)})


def rememberResult(folder: Path, heldOut: Any) -> None:
    """Leave beside a finished run how its model did, until it is decided whether to use the model."""
    _remember(folder, {**recallRun(folder), "held_out": heldOut})


def settleRun(folder: Path) -> None:
    """The model of a run is in use: the copies of the cases and the checkpoint are needed no more."""
    _remember(folder, {**recallRun(folder), "settled": True})
    for part in (folder / "cases", folder / "run" / "checkpoint"):
        shutil.rmtree(part, ignore_errors=True)


def recallRun(folder: Path) -> dict[str, Any]:
    """Return what was left beside a run, with defaults for what is missing."""
    content: dict[str, Any] = {"name": folder.name, "cases": [], "classes": {}, "held_out": None, "settled": False}
    try:
        found = json.loads((folder / _STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return content
    return {**content, **found} if isinstance(found, dict) else content


def isFinished(folder: Path) -> bool:
    """Whether a run has its model."""
    return (folder / "run" / "model" / "model.json").is_file()


def canResume(folder: Path) -> bool:
    """Whether a run was cut off and has a checkpoint to go on from."""
    checkpoint = folder / "run" / "checkpoint"
    return not isFinished(folder) and checkpoint.is_dir() and any(checkpoint.iterdir())


def runTitle(folder: Path) -> str:
    """Return what a run is called in a list."""
    started = re.search(r"\d{8}-\d{6}(-\d+)?$", folder.name)
    title = f"{recallRun(folder)['name']} · {started[0] if started else folder.name}"
    return _("{run} · finished").format(run=title) if isFinished(folder) else title


def openRuns(root: Path | None = None) -> list[Path]:
    """Return the folders of runs that can go on, and of those whose model waits for a decision; the newest first."""
    root = root or runsFolder()
    if not root.is_dir():
        return []
    found = [
        folder
        for folder in root.iterdir()
        if canResume(folder) or (isFinished(folder) and not recallRun(folder)["settled"])
    ]
    return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _remember(folder: Path, content: Mapping[str, Any]) -> None:
    (folder / _STATE_FILE).write_text(json.dumps(content), encoding="utf-8")


def removeRun(folder: Path) -> None:
    """Remove a run and the cases that were written for it."""
    if runsFolder() in folder.parents:
        shutil.rmtree(folder, ignore_errors=True)
