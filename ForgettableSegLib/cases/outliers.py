"""Labels that are far from those of the other cases: in volume, in place, or in what lies beneath them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ForgettableSegLib.cases.facts import CaseFacts, LabelFacts
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.task import Task

# With fewer cases nothing can be said of what is usual.
FEWEST_CASES = 6
# Robust standard deviations from the median beyond which a case is told of; on 200 sound cases of the Decathlon's
# hippocampi all but a few lie within it.
FAR = 5.0
# Below these differences nothing is far, however alike the other cases are.
_LEAST = {"place": 2.0, "volume": math.log(1.2), "unevenness": 0.05}


def label_facts(image: NDArray[np.float32], values: NDArray[np.integer], geometry: Geometry) -> LabelFacts | None:
    """Where a label lies and what lies beneath it; None for an empty label or an image of one value.

    Args:
        image: one channel `[z, y, x]`.
        values: label values on the same grid.
        geometry: the grid.
    """
    inside = values > 0
    deviation = float(image.std(dtype=np.float64))
    if not inside.any() or not deviation > 0:
        return None
    middle = np.argwhere(inside).mean(axis=0)[::-1]
    centre = geometry.index_to_physical(middle) - geometry.index_to_physical((np.asarray(geometry.size) - 1) / 2)
    return LabelFacts(tuple(centre.tolist()), float(image[inside].std(dtype=np.float64)) / deviation)


def find_outliers(facts: Sequence[CaseFacts], task: Task | None) -> list[tuple[str, str]]:
    """The cases whose label is far from the other cases', each with a clause a reason.

    Distances are from the median in robust standard deviations (1.4826 times the median absolute deviation). Looked at
    are the volume of each class (its logarithm), the label's place within the image, and how uneven the image is
    beneath the label: a shifted label, or one of another case, lies over several tissues and their edges.

    Args:
        facts: of all cases.
        task: names the classes.
    """
    labelled = [each for each in facts if each.label is not None]
    found: dict[str, list[str]] = {}
    if len(labelled) < FEWEST_CASES:
        return []
    for axis, name in enumerate(("left-right", "front-back", "up-down")):
        _collect(
            found,
            {each.case_id: each.label.centre_mm[axis] for each in labelled},
            "place",
            lambda value, usual, name=name: f"its label lies {value - usual:+.3g} mm off the usual place ({name})",
        )
    _collect(
        found,
        {each.case_id: each.label.unevenness for each in labelled},
        "unevenness",
        lambda value, usual: (
            f"the image is {value / usual:.2g} times as uneven beneath its label as beneath the others"
        ),
        above_only=True,
    )
    for value, name in _classes_of(labelled, task):
        volumes = {each.case_id: math.log(each.millilitres(value)) for each in labelled if each.voxels.get(value)}
        if len(volumes) >= FEWEST_CASES:
            _collect(
                found,
                volumes,
                "volume",
                lambda value, usual, name=name: (
                    f"its {name} has {math.exp(value):.3g} ml, usual are {math.exp(usual):.3g}"
                ),
            )
    return [(case_id, "; ".join(reasons)) for case_id, reasons in found.items()]


def _classes_of(facts: Sequence[CaseFacts], task: Task | None) -> list[tuple[int, str]]:
    if task is not None:
        return [(each.value, each.name) for each in task.classes]
    return [(value, f"value {value}") for value in sorted({value for each in facts for value in each.voxels})]


def _collect(
    found: dict[str, list[str]],
    numbers: dict[str, float],
    kind: str,
    clause: Callable[[float, float], str],
    *,
    above_only: bool = False,
) -> None:
    values = np.array(list(numbers.values()))
    usual = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(values - usual))), _LEAST[kind] / FAR)
    for case_id, value in numbers.items():
        off = value - usual if above_only else abs(value - usual)
        if off > FAR * spread:
            found.setdefault(case_id, []).append(clause(value, usual))
