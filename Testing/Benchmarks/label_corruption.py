"""Spoil labels as people do, seeded: the ground truth for whatever claims to find wrong labels.

Five kinds take turns: erosion and dilation by 2 voxels, a shift by 3 voxels, exchanged classes, and a missing
structure. They are applied to whole cases (in 3D) or to single slices (within the slice), and each changes the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

RADIUS, SHIFT = 2, 3


def _grown_or_shrunk(labels: np.ndarray, *, grow: bool) -> np.ndarray:
    """Each class eroded, or dilated into the background, by `RADIUS` voxels."""
    changed = labels.copy() if grow else np.zeros_like(labels)
    for value in _classes(labels):
        mask = labels == value
        if grow:
            changed[ndimage.binary_dilation(mask, iterations=RADIUS) & (labels == 0)] = value
        else:
            changed[ndimage.binary_erosion(mask, iterations=RADIUS)] = value
    return changed


def erode(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Every class smaller by 2 voxels."""
    return _grown_or_shrunk(labels, grow=False)


def dilate(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The foreground larger by 2 voxels."""
    return _grown_or_shrunk(labels, grow=True)


def shift(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Everything moved by 3 voxels along one axis."""
    step = np.zeros(labels.ndim)
    step[generator.integers(labels.ndim)] = SHIFT * generator.choice([-1, 1])
    return ndimage.shift(labels, step, order=0)


def exchange(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Every class called like the next one; two classes are exchanged."""
    table = np.arange(256, dtype=labels.dtype)
    values = (1, 2) if len(_classes(labels)) < 2 else _classes(labels)
    table[list(values)] = np.roll(values, 1)
    return table[labels]


def remove(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One of the classes missing."""
    return np.where(labels == generator.choice(_classes(labels)), 0, labels).astype(labels.dtype)


KINDS: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "erosion": erode,
    "dilation": dilate,
    "shift": shift,
    "exchange": exchange,
    "missing": remove,
}


@dataclass(frozen=True)
class Corruption:
    """What was done: to which case, which slice of it (None: all of it), and of which kind."""

    case: str
    slice: int | None
    kind: str


def corrupt(
    labels: Mapping[str, np.ndarray], *, unit: str, share: float, seed: int
) -> tuple[dict[str, np.ndarray], list[Corruption]]:
    """Spoil a share of the cases, or of the slices with foreground.

    Args:
        labels: label maps ``[z, y, x]`` by case, uint8.
        unit: "case", or "slice" (along z).
        share: of them to spoil.
        seed: the same seed, labels and share give the same result.

    Returns:
        All label maps, and what was done.
    """
    generator = np.random.default_rng(seed)
    units = [(name, None) for name in sorted(labels)] if unit == "case" else list(_slices(labels))
    chosen = [units[i] for i in generator.permutation(len(units))[: round(share * len(units))]]
    changed = {name: array.copy() for name, array in labels.items()}
    done = []
    for turn, (name, index) in enumerate(chosen):
        part = labels[name] if index is None else labels[name][index]
        order = np.roll(list(KINDS), -turn)
        # A kind that changes nothing here (the exchange of a class with itself) leaves the turn to the next one.
        kind, spoilt = next(
            (kind, new) for kind in order if not np.array_equal(new := KINDS[str(kind)](part, generator), part)
        )
        changed[name][... if index is None else index] = spoilt
        done.append(Corruption(name, index, str(kind)))
    return changed, done


def _classes(labels: np.ndarray) -> list[int]:
    return [int(value) for value in np.unique(labels) if value]


def _slices(labels: Mapping[str, np.ndarray]) -> Iterable[tuple[str, int]]:
    for name in sorted(labels):
        for index in np.flatnonzero(labels[name].any((1, 2))):
            yield name, int(index)
