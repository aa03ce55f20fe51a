"""Tags of a training case from its own label map: what a report would say of side, size and position."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.label_files import label_path, read_label, read_label_map
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.experiments.regimes import drawn

# Shares of the image that part small from medium-sized, and that from large.
_SIZES = ((0.005, "small"), (0.02, "medium"), (np.inf, "large"))
# Thirds of the image from the patient's right to the left, and from the feet to the head.
_SIDES, _HEIGHTS = ("right", "middle", "left"), ("lower", "central", "upper")


def tags_of(label: NDArray[np.integer], geometry: Geometry, classes: Sequence[SegmentClass]) -> str:
    """Tags such as "liver large right upper, spleen small left upper"; of no class "nothing".

    Args:
        label: values of the task ``[z, y, x]``.
        geometry: of the label.
        classes: of the task.
    """
    corners = geometry.index_to_physical(list(itertools.product(*((-0.5, n - 0.5) for n in geometry.size))))
    low, high = corners.min(0), corners.max(0)
    found = []
    for each in classes:
        voxels = np.argwhere(label == each.value)
        if not len(voxels):
            continue
        share = len(voxels) / label.size
        size = next(word for limit, word in _SIZES if share < limit)
        x, _, z = (geometry.index_to_physical(voxels.mean(0)[::-1]) - low) / (high - low)
        found.append(f"{each.name} {size} {_SIDES[min(2, int(3 * x))]} {_HEIGHTS[min(2, int(3 * z))]}")
    return ", ".join(found) or "nothing"


def tags_of_cases(cases: Sequence[Case], share: float, task: Task, *, seed: int) -> dict[str, str]:
    """Tags of a share of the cases, drawn by the seed, by case; at least one where the share is above 0."""
    number = max(1, round(len(cases) * share)) if share > 0 and cases else 0
    chosen = set(drawn([case.case_id for case in cases], seed=seed, purpose="text")[:number])
    return {
        case.case_id: tags_of(read_label(case, task), read_label_map(label_path(case))[1], task.classes)
        for case in cases
        if case.case_id in chosen
    }
