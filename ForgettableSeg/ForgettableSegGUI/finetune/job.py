"""One training: scene cases to files, a request to the worker, the run folder. No Qt, so that scripts can use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from ForgettableSegMRML.labelmaps import writeLabelMap
from ForgettableSegMRML.volumes import writeVolume

from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.jobs.requests import make_request

from ..segment_classes import valuesBySegment
from .model import TrainingCase


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
