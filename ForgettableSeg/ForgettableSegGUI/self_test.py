"""The self test of the module: the whole loop on synthetic cases, for real, in the scene of the application."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer

from ForgettableSegLib.cases.task import SegmentClass, Task

from . import results
from .samples import CLASSES, syntheticCase

_CASES = 6
_SETTINGS = {"epochs": 8, "batch_size": 8, "features": [8, 16, 32], "num_heads": 2, "device": "cpu", "seed": 0}
_FINE_TUNING = {**_SETTINGS, "epochs": 2}
_BETTER_THAN_CHANCE = 0.3


def run(logic: Any, check: Callable[[Any, str], None]) -> None:
    """Train a model on synthetic cases, segment with it, review the result, fine-tune it.

    Args:
        logic: the module's logic.
        check: called with what must be true, and what it means.
    """
    pairs = [syntheticCase(slicer.mrmlScene, seed) for seed in range(_CASES)]
    classes = tuple(SegmentClass(name=name, value=value) for value, name in enumerate(CLASSES, 1))
    task = Task(name="synthetic", modality="MR", channels=("MR",), classes=classes)
    with tempfile.TemporaryDirectory(prefix="forgettableseg-test-") as folder:
        first = logic.fineTune(pairs, "", "self-test", _SETTINGS, task=task, folder=Path(folder) / "first")
        dice = {row.name: row.after for row in first.comparison.rows}
        check(dice["mean"] > _BETTER_THAN_CHANCE, f"the trained model finds the structures: {dice}")

        result = logic.segment(pairs[0][0], model=str(first.modelPath), device="cpu")
        segmentation = result.segmentationNode.GetSegmentation()
        names = [segmentation.GetNthSegment(index).GetName() for index in range(segmentation.GetNumberOfSegments())]
        check(names == list(CLASSES), f"the segments are named like the classes: {names}")
        check(set(result.heatmapNodes) == {"confidence", "prototype_ratio"}, "both heatmaps are in the scene")
        review = results.reviewOf(result.segmentationNode)
        check(review is not None and len(review.slices) > 0, "the hardest slices are listed")
        check(result.tableNode.GetNumberOfRows() == len(CLASSES), "the table holds the volume of each segment")

        second = logic.fineTune(
            pairs, str(first.modelPath), "self-test-tuned", _FINE_TUNING, folder=Path(folder) / "second"
        )
        check(all(before is not None for _name, before, _after in second.comparison.rows), "Dice before is known")
        check((second.modelPath / "model.json").is_file(), "the new model is there")
        check((first.modelPath / "model.json").is_file(), "the old model is still there")
