"""What the module's logic does for scripts, waiting or in the background."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer

from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError

from .blocking import sharedBlockingWorker
from .case_files import CASE
from .finetune.comparison import Comparison, comparisonFromValues
from .finetune.job import (
    SceneCase,
    trainingRequest,
    writeSceneCases,
)
from .finetune.model import TrainingCase, uniqueCaseId
from .job_state import JobState
from .model_cards import ModelCard, cardFromDict
from .runs import newRunFolder
from .segment.job import SegmentationJob, SegmentationResult
from .segment.model import ownRemarks
from .segment_classes import proposedClasses
from .worker_process import pythonExecutable, workerVariables

PACKAGES = ("ForgettableSegGUI", "ForgettableSegMRML", "ForgettableSegLib")
"""Packages that are reloaded with the module."""

Nodes = Sequence[slicer.vtkMRMLVolumeNode]
Pair = tuple[Nodes, slicer.vtkMRMLSegmentationNode]
OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves.

    Args:
        modelPath: folder of the new model, which is not installed yet.
        comparison: Dice before and after on cases that were kept out.
        folder: of the run and its cases.
    """

    modelPath: Path
    comparison: Comparison
    folder: Path


def models() -> list[ModelCard]:
    """Return the cards of the installed models."""
    state = _run("models", {"action": "list"})
    cards = (cardFromDict(entry) for entry in state.result.get("models") or ())
    return [card for card in cards if card is not None]


def segment(volumeNodes: Nodes, model: str, *, onEvent: OnEvent | None = None, **options: Any) -> SegmentationResult:
    """Segment a volume and wait for the result."""
    job = SegmentationJob(volumeNodes, model=model, task=taskOf(model), **options)
    try:
        state = _run("segment", job.request(), onEvent)
        _refuseNothing(state)
        return job.load(state.artifacts, state.problems)
    finally:
        job.discard()


def startSegmentation(
    worker: Any,
    volumeNodes: Nodes,
    model: str,
    onFinished: Callable[[SegmentationResult | Exception], None],
    *,
    onEvent: OnEvent | None = None,
    **options: Any,
) -> str:
    """Segment a volume in the background."""
    job = SegmentationJob(volumeNodes, model=model, task=taskOf(model), **options)
    state = JobState("segment")

    def heard(event: dict[str, Any]) -> None:
        state.hear(event)
        if onEvent is not None:
            onEvent(event)
        if state.running:
            return
        try:
            onFinished(_outcome(job, state))
        finally:
            job.discard()

    return worker.submit("segment", job.request(), heard)


def fineTune(
    pairs: Sequence[Pair],
    model: str,
    name: str,
    settings: Mapping[str, Any],
    *,
    task: Task | None = None,
    mapping: Mapping[str, str] | None = None,
    folder: Path | None = None,
    onEvent: OnEvent | None = None,
) -> TrainingResult:
    """Train a model on cases of the scene and wait for the result."""
    task = task or taskOf(model)
    folder = folder or newRunFolder(name)
    if mapping is None:
        mapping, _sentence = proposedClasses([segmentation for _volumes, segmentation in pairs], task)
    cases: list[SceneCase] = []
    taken: list[Any] = []
    for volumeNodes, segmentationNode in pairs:
        case = SceneCase(_caseId(volumeNodes[0].GetName(), taken), tuple(volumeNodes), segmentationNode)
        cases.append(case)
        taken.append(case)
    written = list(writeSceneCases(cases, folder / "cases", task, mapping))
    job, arguments = trainingRequest(written, task=task, folder=folder, name=name, settings=settings, model=model)
    state = _run(job, arguments, onEvent)
    path = Path(str(state.result.get("model") or folder / "run" / "model"))
    return TrainingResult(path, comparisonFromValues(state.result.get("held_out") or {}), folder)


def installModel(path: Path | str) -> str:
    """Verify a model package and install it; returns its name."""
    result = _run("models", {"action": "install", "path": str(path)}).result
    return str(result["model"]["name"])


def taskOf(model: str) -> Task:
    """Return what a model segments.

    Raises:
        ForgettableSegError: if there is no such model.
    """
    result = _run("models", {"action": "show", "name": model}).result
    card = cardFromDict(result["model"])
    if card is None:
        raise ForgettableSegError(ErrorCode.MODEL_MISSING, f"There is no model named {model}.")
    return card.task


def _run(job: str, arguments: Mapping[str, Any], onEvent: OnEvent | None = None) -> Any:
    return sharedBlockingWorker(pythonExecutable, workerVariables).run(job, arguments, onEvent)


def _outcome(job: SegmentationJob, state: Any) -> SegmentationResult | Exception:
    if state.outcome == "cancelled":
        return Cancelled()
    try:
        _refuseNothing(state)
        return job.load(state.artifacts, state.problems)
    except ForgettableSegError as error:
        return error


def _refuseNothing(state: JobState) -> None:
    """Say why there is no segmentation, with the library's own code, by which a script can tell what to do."""
    if not any(artifact["kind"] == "segmentation" for artifact in state.artifacts):
        code = next(iter(state.codes & {*ErrorCode}), ErrorCode.INTERNAL)
        text = " ".join(ownRemarks(state.problems, CASE)) or state.text()
        raise ForgettableSegError(ErrorCode(code), text or "The job made no segmentation.")


def _caseId(name: str, taken: Sequence[SceneCase]) -> str:
    return uniqueCaseId(name, [TrainingCase(caseId=case.caseId) for case in taken])
