"""How large volumes are, and in how many pieces their structures lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.files import read_image
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.grid import PreparedGrid
from ForgettableSegLib.cases.label_files import read_label
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ForgettableSegError

QUANTILES = (0.05, 0.5, 0.95)
"""What is kept of measures over cases, so that no single case can be told from them."""

MOST_MEASURED = 60
"""More cases hardly move the quantiles, and reading them takes time."""


def lps_spacing(geometry: Geometry) -> tuple[float, float, float]:
    """Distance of voxels along the axes nearest to x, y, z of the LPS frame, mm."""
    return PreparedGrid.plan(geometry, (None, None, None), 0).spacing[::-1]


def extent_mm(geometry: Geometry) -> tuple[float, float, float]:
    """Length of a volume along the axes nearest to x, y, z of the LPS frame."""
    counts = PreparedGrid.plan(geometry, (None, None, None), 0).shape[::-1]
    return tuple(count * step for count, step in zip(counts, lps_spacing(geometry), strict=True))


def count_pieces(mask: np.ndarray) -> int:
    """Number of connected pieces (by faces, edges and corners) of a mask ``[z, y, x]``."""
    return int(_pieces(mask).max(initial=0))


def keep_largest(labels: np.ndarray, values: Iterable[int]) -> dict[int, int]:
    """Set all but the largest connected piece of each class to background, in place.

    Args:
        labels: label map ``[z, y, x]``.
        values: of the classes.

    Returns:
        Number of voxels removed, by value; a class of one piece is not named.
    """
    removed = {}
    for value in values:
        others = _pieces(labels == value) > 1
        if others.any():
            removed[value] = int(others.sum())
            labels[others] = 0
    return removed


def gain_of_largest(predicted: np.ndarray, reference: np.ndarray) -> float:
    """By how much Dice rises when only the largest piece of a predicted mask is kept; 0 where nothing changes.

    Args:
        predicted, reference: masks ``[z, y, x]``.
    """
    numbers = _pieces(predicted)
    if numbers.max(initial=0) < 2:
        return 0.0
    kept, total = numbers == 1, float(reference.sum())
    dice = [2 * float((mask & reference).sum()) / (float(mask.sum()) + total) for mask in (predicted, kept)]
    return dice[1] - dice[0]


def measure_cases(cases: Iterable[Case], task: Task) -> dict[str, Any]:
    """Measure labelled cases, as a model's field of view keeps it (see ``models.field_of_view``).

    Args:
        cases: the training cases, of which about `MOST_MEASURED` are looked at; one that cannot be read is left out.
        task: tells channels and label values.

    Returns:
        "extent_mm", "spacing_mm", "intensity" (where the median lies between the lowest and the highest quantile of a
        volume) and "classes" (volume, share of the volume and number of pieces), each at `QUANTILES`; empty without
        any case.
    """
    extents, spacings, medians = [], [], []
    shapes: dict[str, list[tuple[float, float, float]]] = {each.name: [] for each in task.classes}
    cases = list(cases)
    for case in cases[:: -(-len(cases) // MOST_MEASURED) or 1]:
        try:
            image, geometry = read_image(case, channels=len(task.channels))
            labels = read_label(case, task, geometry=geometry)
        except ForgettableSegError:
            continue
        extents.append(extent_mm(geometry))
        spacings.append(lps_spacing(geometry))
        low, middle, high = np.quantile(image[0], QUANTILES)
        medians.append(float((middle - low) / (high - low)) if high > low else 0.0)
        for each in task.classes:
            mask = labels == each.value
            if mask.any():
                volume = float(mask.sum()) * geometry.voxel_volume / 1000
                shapes[each.name].append((volume, float(mask.mean()), float(count_pieces(mask))))
    if not extents:
        return {}
    columns = ("volume_ml", "share", "pieces")
    return {
        "extent_mm": [_quantiles(lengths) for lengths in zip(*extents, strict=True)],
        "spacing_mm": [_quantiles(steps) for steps in zip(*spacings, strict=True)],
        "intensity": _quantiles(medians),
        "classes": {
            name: {key: _quantiles(values) for key, values in zip(columns, zip(*found, strict=True), strict=True)}
            for name, found in shapes.items()
            if found
        },
    }


def _pieces(mask: np.ndarray) -> np.ndarray:
    """The pieces of a mask, numbered from the largest on; 0 outside."""
    inside = np.argwhere(mask)
    numbers = np.zeros(mask.shape, dtype=np.uint32)
    if len(inside):
        box = tuple(slice(low, high + 1) for low, high in zip(inside.min(0), inside.max(0), strict=True))
        part = sitk.GetImageFromArray(mask[box].astype(np.uint8))
        numbers[box] = sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(part, True)))
    return numbers


def _quantiles(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in np.quantile(values, QUANTILES)]
