"""Small real inputs for the tests of jobs: cases on disk, settings for a run of seconds, and a model trained so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from synthetic import TASK, write_cases

from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import make_request
from ForgettableSegLib.worker.protocol import encode_event
from ForgettableSegLib.worker.runner import run_job

SETTINGS: dict[str, Any] = {
    "features": [8, 16],
    "num_heads": 2,
    "batch_size": 4,
    "patch_size": [16, 16],
    "iterations": 8,
    "checkpoint_every": 4,
    "validate_every": 4,
    "text": "onehot",
    "device": "cpu",
}


def inline(cases: CaseList) -> list[dict[str, Any]]:
    """Cases as a request holds them."""
    return [
        {"id": case.case_id, "images": [str(path) for path in case.images], "label": str(case.label)} for case in cases
    ]


def make_cases(folder: Path, number: int = 6, *, shape: tuple[int, int, int] = (6, 24, 20)) -> list[dict[str, Any]]:
    """Cases on disk, as a request holds them."""
    return inline(write_cases(folder, number, shape=shape))


def relabelled(cases: list[dict[str, Any]], values: dict[int, int]) -> list[dict[str, Any]]:
    """The cases with label files of their own, in other values."""
    changed = []
    for case in cases:
        image = sitk.ReadImage(case["label"])
        array = sitk.GetArrayFromImage(image)
        other = np.zeros(array.shape, np.uint8)
        for old, new in values.items():
            other[array == old] = new
        written = sitk.GetImageFromArray(other)
        written.CopyInformation(image)
        path = Path(case["label"]).with_name(f"other_{case['id']}.nrrd")
        sitk.WriteImage(written, str(path))
        changed.append({**case, "label": str(path)})
    return changed


def training_arguments(folder: Path, run: Path, **settings: Any) -> dict[str, Any]:
    """Arguments of a training of seconds on six cases below `folder`."""
    return {
        "cases": make_cases(folder),
        "task": TASK.to_dict(),
        "run": str(run),
        "settings": {**SETTINGS, **settings},
        "name": "balls",
    }


def run(job: str, **arguments: Any) -> tuple[JobResult, list[dict[str, Any]]]:
    """Run a job here; return its result and its events, each of which the protocol must know."""
    events: list[dict[str, Any]] = []

    def sink(event: dict[str, Any]) -> None:
        encode_event(event)
        events.append(json.loads(json.dumps(event, default=str)))

    result = run_job(make_request(job, arguments), JobContext(id="1", job=job, sink=sink))
    return result, events


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """The kinds of events, in order."""
    return [event["event"] for event in events]


def artifacts(events: list[dict[str, Any]], case: str | None = None) -> dict[str, Path]:
    """Paths of the files that a job told of, by kind."""
    found = [event for event in events if event["event"] == "artifact" and event.get("case") == case]
    return {event["kind"]: Path(event["path"]) for event in found}
