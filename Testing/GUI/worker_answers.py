"""What the worker answers: models, and the files and events of a segmentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TASK = {
    "name": "synthetic",
    "modality": "MR",
    "channels": ["MR"],
    "classes": [{"name": "ball", "value": 1}, {"name": "shell", "value": 2}],
}
MODEL = {
    "name": "tiny",
    "path": "somewhere",
    "shipped": False,
    "bytes": 5_000_000,
    "problem": "",
    "card": {"name": "tiny", "title": "Tiny model", "task": TASK, "text": {"prompts": ["a ball", "a shell"]}},
}
SLICE = {"difficulty": 3.0, "position_lps": [1, 2, 3], "area_mm2": 9.0}
REVIEW = {
    "schema": 1, "case": "case", "model": "tiny", "channels": ["confidence", "prototype_ratio"], "slice_axis": 0,
    "slices": [
        {**SLICE, "slice": 12, "class": "ball", "percentile": 99.0},
        {**SLICE, "slice": 5, "class": "shell", "percentile": 40.0, "position_lps": [4, 5, 6]},
    ],
    "classes": [
        {"name": n, "value": v, "voxels": 10, "volume_ml": v / 2, "mean_difficulty": 0.5, "share_above_95": 0.1}
        for n, v in (("ball", 1), ("shell", 2))
    ],
    "case_difficulty": {"difficulty": 2.0, "percentile": 96.0, "verdict": "hard"},
}  # fmt: skip


def write_results(request: dict[str, Any]) -> dict[str, str]:
    """Write what the job `segment` writes; returns the files by kind of artifact."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(request["cases"][0]["images"][0])
    folder = Path(request["output"]) / "case"
    folder.mkdir(parents=True)
    values = sitk.GetArrayFromImage(image)
    labels = (values > 200).astype("uint8") + (values > 350).astype("uint8")
    paths = {}
    for kind, array in {
        "segmentation": labels,
        "confidence": values * 0 + 90,
        "prototype_ratio": values * 0 + 20,
    }.items():
        written = sitk.GetImageFromArray(array)
        written.CopyInformation(image)
        paths[kind] = str(folder / f"case_{kind}.nrrd")
        sitk.WriteImage(written, paths[kind])
    paths["review"] = str(folder / "case_review.json")
    Path(paths["review"]).write_text(json.dumps(REVIEW), encoding="utf-8")
    return paths


def segment(module: Any) -> Any:
    """Press Apply, answer for the worker, and return the segmentation node."""
    from module_view import click
    from stand_in import spin

    panel = module.panel("segment")
    assert spin(lambda: panel.ui.applyButton.enabled, 5)
    click(panel.ui.applyButton)
    job, request, _heard = module.worker.asked[-1]
    assert job == "segment"
    for kind, path in write_results(request).items():
        module.worker.answer("segment", event="artifact", kind=kind, path=path, case="case")
    module.worker.answer("segment", event="done", exit_code=0, result={})
    return module.parameters.outputSegmentation
