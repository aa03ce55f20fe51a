"""How images are made from label maps: which label values look alike, how bright they are, and what class each is of.

The images themselves are made while training (`training.synthesis`). Billot et al., "SynthSeg: Segmentation of brain
MRI scans of any contrast and resolution without retraining", Medical Image Analysis 2023.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.findings import CaseError, FindingCode
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.label_files import read_label_map
from ForgettableSegLib.cases.labels import values_present
from ForgettableSegLib.cases.task import MAX_CLASSES, Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.resources import resources_dir

RANDOM = "random"
_SIDES = ("left", "right")


@dataclass(frozen=True)
class Tissue:
    """Label values that share one distribution of intensities (a generation class), as both sides of a structure do.

    Args:
        values: label values.
        mean, spread: of the tissue's mean over scans, on a scale of 0 to 255; None where no scan is its model.
        deviation: standard deviation inside the tissue.
        inside: whether it stays when a head is stripped of its skull.
    """

    values: tuple[int, ...]
    mean: float | None = None
    spread: float = 0.0
    deviation: float = 0.0
    inside: bool = False


@dataclass(frozen=True)
class Recipe:
    """What decides the images of label maps, for one task.

    Label maps are kept as *value indices*: positions in `values`, which fit into 8 bits.

    Args:
        name: "random", a ready recipe's name, or a file's.
        tissues: the generation classes; the first begins with value 0, the background.
        classes: class index of each value index, uint8 `[V]`.
        opposite: class index of the same structure on the other side, itself where there is none, uint8 `[C]`.
    """

    name: str
    tissues: tuple[Tissue, ...]
    classes: NDArray[np.uint8]
    opposite: NDArray[np.uint8]

    @property
    def values(self) -> tuple[int, ...]:
        """Every label value that the recipe knows, tissue by tissue."""
        return tuple(value for tissue in self.tissues for value in tissue.values)

    @property
    def tissue_of_value(self) -> NDArray[np.uint8]:
        """Number of the tissue of each value index, `[V]`."""
        counts = [len(tissue.values) for tissue in self.tissues]
        return np.repeat(np.arange(len(counts)), counts).astype(np.uint8)

    @property
    def key(self) -> list[Any]:
        """Whatever changes a prepared label map, for JSON."""
        return [list(self.values), self.classes.tolist()]

    def read(self, case: Case) -> tuple[NDArray[np.uint8], Geometry]:
        """The value indices of a label-map case, `[z, y, x]`, and its grid.

        Raises:
            CaseError: as `read_label_map`; also for a value that the recipe does not know.
        """
        path = case.images[0]
        read, geometry = read_label_map(path)
        values = self.values
        unknown = sorted(set(values_present(read)) - set(values))
        if unknown:
            message = f"{path} holds the label value {unknown[0]}, which the synthesis recipe '{self.name}' lacks."
            raise CaseError(
                FindingCode.LABEL_VALUE_UNKNOWN,
                path,
                message,
                hint="Add it to a tissue of the recipe, or leave it out.",
            )
        table = np.zeros(max(values) + 1, dtype=np.uint8)
        table[list(values)] = np.arange(len(values))
        return table[read], geometry


def find_recipe(name: str, task: Task) -> Recipe:
    """The recipe that the training setting `synthesis` names.

    Args:
        name: "random" for any task: each class has its own random intensities; the name of a file in
            Resources/Synthesis; or the path of a JSON file laid out like those.
        task: whose classes are segmented.

    Raises:
        ForgettableSegError: SETTING_INVALID if there is no such recipe, or it does not fit the task.
    """
    opposite = opposite_sides(task)
    if name == RANDOM:
        tissues: list[list[int]] = [[0]]
        for index, other in enumerate(opposite.tolist()):
            if index and other >= index:
                tissues.append([task.label_values[one] for one in sorted({index, other})])
        merge: dict[int, int] = {}
        made = tuple(Tissue(tuple(values)) for values in tissues)
    else:
        made, merge = _read(name)
    known = [value for tissue in made for value in tissue.values]
    if not known or known[0] != 0:
        raise _invalid(name, "its first tissue must begin with the value 0, the background")
    if len(set(known)) < len(known):
        raise _invalid(name, "a label value stands in two tissues")
    if len(known) > MAX_CLASSES:
        raise _invalid(name, f"it knows {len(known)} label values, and {MAX_CLASSES} are the most")
    missing = sorted(set(task.label_values) - set(known))
    if missing:
        raise _invalid(name, f"no tissue holds the label value {missing[0]} of task '{task.name}'")
    index_of = {value: index for index, value in enumerate(task.label_values)}
    classes = np.array([index_of.get(merge.get(value, value), 0) for value in known], dtype=np.uint8)
    return Recipe(name, made, classes, opposite)


def opposite_sides(task: Task) -> NDArray[np.uint8]:
    """Class index of the same structure on the other side ("left X", "right X"), itself where there is none, `[C]`."""
    names = ["", *(" ".join(each.name.casefold().split()) for each in task.classes)]
    indices = {name: index for index, name in enumerate(names)}
    opposite = np.arange(len(names), dtype=np.uint8)
    for index, name in enumerate(names):
        side, _, structure = name.partition(" ")
        if side in _SIDES:
            other = _SIDES[1 - _SIDES.index(side)]
            opposite[index] = indices.get(f"{other} {structure}", index)
    return opposite


def _read(name: str) -> tuple[tuple[Tissue, ...], dict[int, int]]:
    shipped = resources_dir() / "Synthesis" / f"{name}.json"
    path = shipped if shipped.is_file() else Path(name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        ready = sorted(one.stem for one in shipped.parent.glob("*.json"))
        known = ", ".join([RANDOM, *ready])
        raise _invalid(name, f"there is no such file or recipe; there are {known}") from error
    except ValueError as error:
        raise _invalid(name, f"it is not JSON ({error})") from error
    try:
        tissues = tuple(_tissue(entry) for entry in content["tissues"])
        merge = {int(value): int(target) for value, target in content.get("merge", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _invalid(name, f"its tissues or its merged values cannot be read ({error})") from error
    return tissues, merge


def _tissue(entry: Mapping[str, Any]) -> Tissue:
    unknown = sorted(set(entry) - {"name", "values", "mean", "spread", "deviation", "inside"})
    if unknown:
        msg = f"a tissue cannot have '{unknown[0]}'"
        raise ValueError(msg)
    values: Sequence[int] = [int(value) for value in entry["values"]]
    numbers = [float(entry.get(key) or 0.0) for key in ("mean", "spread", "deviation")]
    if not values or min(values) < 0 or not all(math.isfinite(one) and one >= 0 for one in numbers):
        msg = f"{dict(entry)} has no values, or a negative number"
        raise ValueError(msg)
    mean = None if entry.get("mean") is None else numbers[0]
    return Tissue(tuple(values), mean, numbers[1], numbers[2], bool(entry.get("inside", False)))


def _invalid(name: str, what: str) -> ForgettableSegError:
    msg = f"The synthesis recipe '{name}' cannot be used: {what}."
    return ForgettableSegError(ErrorCode.SETTING_INVALID, msg, hint="Correct the recipe or the setting 'synthesis'.")
