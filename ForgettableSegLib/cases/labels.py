"""Label values of files and class indices of networks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ForgettableSegLib.cases.task import Task

# Voxels that belong to no class: padding of patches. Losses, prototypes and scores leave them out.
IGNORE_LABEL = 255


def values_present(values: NDArray[np.integer]) -> list[int]:
    """The values that occur in a label map `[z, y, x]`, sorted; plane by plane, because counting widens to 64 bits."""
    found: set[int] = set()
    for plane in values:
        counted = values.dtype == np.uint8
        found.update((np.flatnonzero(np.bincount(plane.reshape(-1))) if counted else np.unique(plane)).tolist())
    return sorted(found)


def to_class_indices(values: NDArray[np.integer], task: Task) -> NDArray[np.uint8]:
    """Class index (0 background, then in task order) of each label value.

    Args:
        values: label values of the task, any shape; `label_files.check_label_values` refuses others.
        task: gives the value of each class.
    """
    table = np.zeros(max(task.label_values) + 1, dtype=np.uint8)
    for index, value in enumerate(task.label_values):
        table[value] = index
    return table[values]


def with_values(values: NDArray[np.integer], pairs: Mapping[int, int]) -> NDArray[np.integer]:
    """A label map in other values.

    Args:
        values: any shape.
        pairs: the new value of each old one; what is not named becomes background.
    """
    if all(old == new for old, new in pairs.items()) and set(values_present(values)) <= {0, *pairs}:
        return values
    changed = np.zeros(values.shape, dtype=np.uint16)
    for old, new in pairs.items():
        changed[values == old] = new
    return changed


def to_label_values(classes: NDArray[np.integer], task: Task) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Label value of each class index, in the smallest unsigned type that holds all of the task's values."""
    kind = np.uint8 if max(task.label_values) <= np.iinfo(np.uint8).max else np.uint16
    return np.asarray(task.label_values, dtype=kind)[classes]
