"""Less data and worse labels, for experiments: which cases train, and labels corrupted in a known way.

A corrupted label map has one of four errors that people make, each as often as the others:

- ``shift``: all of it is moved by a quarter of its extent along one axis, as if drawn on another image.
- ``swap``: each class that is present takes the name of the next one; with a single class it is a ``drop``.
- ``drop``: one class is left out.
- ``swell``: all of it grows by two voxels into the background.

Images, validation labels and held-out labels stay as they are. A share of the training cases can lose their labels;
they stay as images, which a training may learn from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.split import Split

CORRUPTIONS = ("shift", "swap", "drop", "swell")
SWELLING_VOXELS = 2
SHIFT_SHARE = 0.25


def drawn(ids: Iterable[str], *, seed: int, purpose: str) -> list[str]:
    """The ids in an order that depends on seed and ids alone, not on their order or on a version of a generator."""
    return sorted(ids, key=lambda one: hashlib.sha256(f"{purpose}:{seed}:{one}".encode()).digest())


def limited_split(split: Split, number: int | None, *, seed: int) -> Split:
    """The split with so many training cases, and a quarter as many (at least 2) for validation; the test part stays.

    With the same seed fewer cases are always among more cases.

    Args:
        split: of all cases.
        number: training cases; None keeps all.
        seed: draws them.
    """
    if number is None:
        return split
    training = drawn(split.train, seed=seed, purpose="train")[:number]
    validation = drawn(split.validation, seed=seed, purpose="validation")[: max(2, number // 4)]
    return replace(split, train=tuple(sorted(training)), validation=tuple(sorted(validation)))


def without_labels(split: Split, share: float, *, seed: int) -> tuple[Split, set[str]]:
    """The split with that share of its training cases, at least one, and the ids of the others, which lose their label.

    With the same seed fewer cases are always among more cases.
    """
    if share >= 1:
        return split, set()
    order = drawn(split.train, seed=seed, purpose="labelled")
    kept = order[: max(1, round(len(order) * share))]
    return replace(split, train=tuple(sorted(kept))), set(order) - set(kept)


def to_corrupt(cases: Sequence[Case], share: float, *, seed: int) -> list[tuple[Case, str]]:
    """Which of the training cases get a corrupted label, and how; at least one where the share is above 0."""
    number = max(1, round(len(cases) * share)) if share > 0 and cases else 0
    by_id = {case.case_id: case for case in cases}
    order = drawn(by_id, seed=seed, purpose="corrupt")[:number]
    return [(by_id[case_id], CORRUPTIONS[(index + seed) % len(CORRUPTIONS)]) for index, case_id in enumerate(order)]


def corrupted(label: NDArray[np.integer], kind: str, *, seed: int) -> NDArray[np.integer]:
    """A corrupted copy of a label map.

    Args:
        label: values ``[z, y, x]``, 0 is background.
        kind: one of `CORRUPTIONS`.
        seed: draws axis, direction and class.
    """
    generator = np.random.default_rng(seed)
    present = [int(value) for value in np.unique(label) if value]
    if not present:
        return label.copy()
    if kind == "shift":
        return _shifted(label, generator)
    if kind == "swell":
        distance, nearest = distance_transform_edt(label == 0, return_indices=True)
        return np.where(distance <= SWELLING_VOXELS, label[tuple(nearest)], 0).astype(label.dtype)
    result = label.copy()
    if kind == "swap" and len(present) > 1:
        for old, new in zip(present, [*present[1:], present[0]], strict=True):
            result[label == old] = new
        return result
    result[label == generator.choice(present)] = 0
    return result


def _shifted(label: NDArray[np.integer], generator: np.random.Generator) -> NDArray[np.integer]:
    voxels = np.argwhere(label)
    extent = voxels.max(0) - voxels.min(0) + 1
    axis = int(generator.choice(np.flatnonzero(extent == extent.max())))
    step = max(1, round(int(extent[axis]) * SHIFT_SHARE)) * int(generator.choice([-1, 1]))
    result = np.roll(label, step, axis=axis)
    # What leaves the image on one side does not come in on the other.
    wrapped = [slice(None)] * label.ndim
    wrapped[axis] = slice(0, step) if step > 0 else slice(step, None)
    result[tuple(wrapped)] = 0
    return result
