"""What comes out of a case: a segmentation, or the audit of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.inference.ranking import Wanted


@dataclass(frozen=True)
class Segmentation:
    """What came out of a case, all of it on exactly the grid of its image.

    Args:
        labels: label values of the task ``[z, y, x]``, uint8 or uint16.
        difficulty: estimated difficulty per channel (``confidence``; ``prototype_ratio`` if the model has
            prototypes), float32 ``[z, y, x]``, percentiles 0 to 100; empty if not asked for.
        probabilities: float32 ``[classes with background, z, y, x]``, None if not asked for.
        geometry: of the image.
        volumes_ml: volume of each class, by name.
        review: content of the review file, None without difficulty.
        notes: a sentence for everything that was done differently from the plan.
        seconds: wall time by phase.
        task: the classes that the labels hold: the model's, or those of its sides where a locator found them.
        learnt_as: for each class of the task, the name of the class that the model has learnt.
        removed: number of voxels of each class that lay apart from its largest piece and were removed, by name.
        unlike: a sentence for everything that is unlike what the model has learnt.
    """

    labels: np.ndarray
    difficulty: dict[str, np.ndarray]
    probabilities: np.ndarray | None
    geometry: Geometry
    volumes_ml: dict[str, float]
    review: dict[str, Any] | None
    notes: tuple[str, ...]
    seconds: dict[str, float]
    task: Task
    learnt_as: Mapping[str, str]
    removed: Mapping[str, int]
    unlike: tuple[str, ...]

    def labels_as_learnt(self, task: Task) -> np.ndarray:
        """The labels in the values of the model's own classes, the same for both sides.

        Args:
            task: of the model.
        """
        values = {each.name: each.value for each in task.classes}
        table = np.zeros(max(self.task.label_values) + 1, dtype=self.labels.dtype)
        for each in self.task.classes:
            table[each.value] = values[self.learnt_as[each.name]]
        return table[self.labels]


@dataclass(frozen=True)
class Audit:
    """A reference segmentation as the model sees it.

    Args:
        scores: T1, T2, T3, T4 (0 to 1 each) and score (their sum, 0 to 4), float32 ``[z, y, x]``.
        geometry: of the image.
        review: content of the review file, over the reference's foreground.
        wanted: see :func:`~ForgettableSegLib.inference.ranking.wanted_instead`.
        notes: a sentence for everything that was done differently from the plan.
        seconds: wall time by phase.
    """

    scores: dict[str, np.ndarray]
    geometry: Geometry
    review: dict[str, Any]
    wanted: list[Wanted]
    notes: tuple[str, ...]
    seconds: dict[str, float]
