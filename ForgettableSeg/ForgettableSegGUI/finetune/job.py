"""One training: scene cases to files, a request to the worker, the run folder. No Qt, so that scripts can use it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from ForgettableSegMRML.labelmaps import writeLabelMap
from ForgettableSegMRML.volumes import writeVolume

from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.jobs.requests import make_request
from ForgettableSegLib.resources import user_dir

from ..i18n import tr as _
from ..segment_classes import valuesBySegment
from .model import TrainingCase

_STATE_FILE = "panel.json"


@dataclass(frozen=True)
class SceneCase:
    """A training case in the scene.

    Args:
        caseId: its name.
        volumeNodes: one for each channel.
        segmentationNode: its labels.
        group: patient, so that one patient's cases stay on one side of the split.
    """

    caseId: str
    volumeNodes: tuple[slicer.vtkMRMLVolumeNode, ...]
    segmentationNode: slicer.vtkMRMLSegmentationNode
    group: str = ""


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


def writeSceneCases(
    cases: Sequence[SceneCase], folder: Path, task: Task, mapping: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Write cases of the scene to files, one at each step, so that the application can breathe between them.

    Yields:
        The case as a request holds it.

    Raises:
        ForgettableSegError: if a volume cannot be used, segments of two classes overlap, or a file cannot be written.
    """
    for case in cases:
        target = folder / case.caseId
        target.mkdir(parents=True, exist_ok=True)
        images = []
        for channel, volumeNode in enumerate(case.volumeNodes):
            images.append(str(target / f"{case.caseId}_{channel:04d}.nrrd"))
            writeVolume(volumeNode, images[-1])
        label = target / f"{case.caseId}_labels.nrrd"
        values = valuesBySegment(case.segmentationNode, mapping, task)
        writeLabelMap(case.segmentationNode, case.volumeNodes[0], values, label)
        entry = {"id": case.caseId, "images": images, "label": str(label)}
        yield {**entry, "group": case.group} if case.group else entry


def fileCase(case: TrainingCase, task: Task, mapping: Mapping[str, str]) -> dict[str, Any]:
    """Return a case in files as a request holds it, with what its label values stand for where the task has others."""
    entry: dict[str, Any] = {"id": case.caseId, "images": list(case.images), "label": case.label}
    classes = {each.name: each.value for each in task.classes}
    values = {
        value: classes.get(mapping.get(name, ""), 0) for name, value in zip(case.segments, case.values, strict=False)
    }
    if any(old != new for old, new in values.items()):
        entry["label_values"] = {str(old): new for old, new in values.items()}
    return {**entry, "group": case.group} if case.group else entry


def trainingRequest(
    cases: Sequence[Mapping[str, Any]],
    *,
    task: Task,
    folder: Path,
    name: str,
    settings: Mapping[str, Any],
    model: str = "",
) -> tuple[str, dict[str, Any]]:
    """Return the job and its arguments for a training.

    Args:
        cases: as a request holds them.
        task: what to train.
        folder: of this training; the run and its cases lie in it.
        name: of the model that comes out.
        settings: those that differ from the preset.
        model: the model to start from; empty for one from scratch.
    """
    job = "finetune" if model else "train"
    arguments: dict[str, Any] = {
        "cases": [dict(case) for case in cases],
        "task": task.to_dict(),
        "run": str(folder / "run"),
        "settings": dict(settings),
        "name": name,
    }
    if model:
        arguments["model"] = model
    return job, make_request(job, arguments).to_dict()


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
