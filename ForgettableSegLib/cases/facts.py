"""What cases look like, in numbers: sizes, spacings, and how much of each class their labels hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.task import Task


@dataclass(frozen=True)
class LabelFacts:
    """Where the label of a case lies, all classes together, and what lies beneath it.

    Args:
        centre_mm: from the middle of the image to the label's centre, LPS.
        unevenness: standard deviation of the image within the label, in that of the whole image.
    """

    centre_mm: tuple[float, float, float]
    unevenness: float


@dataclass(frozen=True)
class CaseFacts:
    """One case that could be read.

    Args:
        case_id: the case.
        geometry: of its image.
        voxels: number of voxels of each label value but the background, of the task where there is one.
        label: of its label and the first channel of its image, None where there is none.
    """

    case_id: str
    geometry: Geometry
    voxels: dict[int, int] = field(default_factory=dict)
    label: LabelFacts | None = None

    def millilitres(self, value: int) -> float:
        """Volume of a label value."""
        return self.voxels.get(value, 0) * self.geometry.voxel_volume / 1000

    def to_dict(self) -> dict[str, Any]:
        """Content for JSON."""
        return {
            "case": self.case_id,
            "size": list(self.geometry.size),
            "spacing": list(self.geometry.spacing),
            "voxels": {str(value): count for value, count in self.voxels.items()},
            "ml": {str(value): round(self.millilitres(value), 3) for value in self.voxels},
        }


def count_values(values: NDArray[np.integer]) -> dict[int, int]:
    """Number of voxels of each value but 0 in a label map `[z, y, x]`."""
    counts: Counter[int] = Counter()
    for plane in values:
        found, numbers = np.unique(plane, return_counts=True)
        counts.update(dict(zip(found.tolist(), numbers.tolist(), strict=True)))
    return {value: counts[value] for value in sorted(counts) if value}


def values_found(facts: Sequence[CaseFacts]) -> list[dict[str, int]]:
    """Every label value with its voxels and the number of cases that hold it, so that it can be given a name."""
    voxels: Counter[int] = Counter()
    cases: Counter[int] = Counter()
    for each in facts:
        voxels.update(each.voxels)
        cases.update(each.voxels.keys())
    return [{"value": value, "voxels": voxels[value], "cases": cases[value]} for value in sorted(voxels)]


def facts_table(facts: Sequence[CaseFacts], task: Task | None) -> str:
    """A line a case: size, spacing, and the voxels and millilitres of every class."""
    names = {each.value: each.name for each in task.classes} if task else {}
    values = list(names) or [each["value"] for each in values_found(facts)]
    rows = [["case", "size", "spacing mm", *(names.get(value, f"value {value}") for value in values)]]
    for each in facts:
        amounts = [f"{each.voxels.get(value, 0)} = {each.millilitres(value):.3g} ml" for value in values]
        spacing = " x ".join(f"{step:.3g}" for step in each.geometry.spacing)
        rows.append([each.case_id, " x ".join(map(str, each.geometry.size)), spacing, *amounts])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
