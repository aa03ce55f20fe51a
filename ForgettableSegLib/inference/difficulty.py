"""Estimated difficulty as a user reads it: percentiles against held-out cases, and means over the foreground.

The maps themselves come from :mod:`ForgettableSegLib.mining.scores`. Here they are calibrated (METHOD: E.6) and
aggregated (decision 7): a slice, a class or a case is as hard as the mean over its foreground, dilated by two voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from ForgettableSegLib.mining.scores import TERMS

BINS = 512
RADIUS = 2
CONFIDENCE = "confidence"
PROTOTYPE_RATIO = "prototype_ratio"
ESTIMATED_CHANNELS = (CONFIDENCE, PROTOTYPE_RATIO)
MEMORY = "memory"
"""Which memory answers: no difficulty, but shown beside it, 0 for the background's to 100 for the last class's."""
SCORE = TERMS[-1]
HARD_PERCENTILE = 95.0

_PREFIX = "calibration."
# Largest value of a channel; 1 for those not named. The score is the sum of four terms.
_LARGEST = {SCORE: 4.0}
_CHUNK = 2**20


class HistogramBuilder:
    """Counts values of channels at a level (``voxel``, ``slice``, ``case``) in 512 bins from 0 to the largest value."""

    def __init__(self) -> None:
        self._counts: dict[str, np.ndarray] = {}

    def add(self, channel: str, level: str, values: np.ndarray) -> None:
        """Count values of any shape."""
        counts, _ = np.histogram(values, bins=BINS, range=(0.0, _LARGEST.get(channel, 1.0)))
        name = f"{channel}_{level}"
        self._counts[name] = self._counts.get(name, 0) + counts

    def tensors(self) -> dict[str, Tensor]:
        """The histograms as they lie in a model package: ``calibration.<channel>_<level>``, float32 ``[512]``."""
        return {
            f"{_PREFIX}{name}": torch.from_numpy(counts.astype(np.float32)) for name, counts in self._counts.items()
        }


Verdict = Literal["usual", "hard", "unlike"]
CLEARLY_ABOVE = 1.25
"""Between the hardest good case and noise, other organs and misplaced crops: 33 good crops reach 0.069 and 33 others
0.048, garbage begins at 0.099 (Testing/Benchmarks/RESULTS.md)."""


@dataclass(frozen=True)
class Calibration:
    """Turns raw difficulty into percentiles of what held-out cases showed.

    A percentile is the share (0 to 100) of the held-out values that were smaller, interpolated within a bin, so it
    grows with the value. Without a histogram it is the share of the channel's largest value.

    Args:
        edges: per name (``confidence_voxel``, ...), percentiles at the 513 edges of the bins.
    """

    edges: Mapping[str, np.ndarray]

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Calibration:
        """Read the ``calibration.*`` histograms among the tensors of a model package; others are ignored.

        One with another number of bins, from another version, is read at ours.
        """
        edges = {}
        for name, counts in tensors.items():
            if name.startswith(_PREFIX) and counts.sum() > 0:
                cumulative = np.concatenate(([0.0], np.cumsum(counts.cpu().numpy(), dtype=np.float64)))
                own = np.linspace(0.0, 1.0, len(cumulative))
                cumulative = np.interp(np.linspace(0.0, 1.0, BINS + 1), own, cumulative)
                edges[name.removeprefix(_PREFIX)] = 100.0 * cumulative / cumulative[-1]
        return cls(edges)

    def percentile(self, channel: str, level: str, value: float) -> float:
        """Percentile (0 to 100) of one raw value."""
        return float(np.interp(value, self._grid(channel), self._edges(channel, level)))

    def value_at(self, channel: str, level: str, percentile: float) -> float:
        """Raw value at a percentile: the largest one that is not above it."""
        edges, grid = self._edges(channel, level), self._grid(channel)
        upper = min(int(np.searchsorted(edges, percentile, side="right")), BINS)
        lower = upper - 1
        rise = edges[upper] - edges[lower]
        share = (percentile - edges[lower]) / rise if rise > 0 else 1.0
        return float(grid[lower] + min(share, 1.0) * (grid[upper] - grid[lower]))

    def verdict(self, channel: str, level: str, value: float) -> Verdict | None:
        """What a mean difficulty of a whole case says beside those of the cases held out; None without a histogram.

        Args:
            channel: of the difficulty.
            level: "case", or "class<index>" for one class of the case.
            value: raw mean difficulty.

        Returns:
            "unlike" where it is clearly above that of every case held out, as garbage is; "hard" above 95 % of them, as
            one good case in twenty is too; else "usual".
        """
        edges = self.edges.get(f"{channel}_{level}")
        if edges is None:
            return None
        largest = self._grid(channel)[np.searchsorted(edges, edges[-1] - 1e-9)]
        if value > CLEARLY_ABOVE * largest:
            return "unlike"
        return "hard" if self.percentile(channel, level, value) > HARD_PERCENTILE else "usual"

    def apply_(self, channel: str, values: np.ndarray) -> np.ndarray:
        """Replace a contiguous float32 map by its percentiles at voxel level, in place, and return it."""
        edges = torch.from_numpy(self._edges(channel, "voxel").astype(np.float32))
        lower, rise = edges[:-1].contiguous(), edges.diff()
        scale = BINS / _LARGEST.get(channel, 1.0)
        for chunk in torch.from_numpy(values).view(-1).split(_CHUNK):
            position = chunk * scale
            bins = position.int().clamp_(0, BINS - 1)
            position.sub_(bins).clamp_(0, 1).mul_(rise.index_select(0, bins))
            torch.add(lower.index_select(0, bins), position, out=chunk)
        return values

    def _edges(self, channel: str, level: str) -> np.ndarray:
        found = self.edges.get(f"{channel}_{level}")
        return np.linspace(0.0, 100.0, BINS + 1) if found is None else found

    @staticmethod
    def _grid(channel: str) -> np.ndarray:
        return np.linspace(0.0, _LARGEST.get(channel, 1.0), BINS + 1)


def dilate(mask: np.ndarray, *, axes: Iterable[int]) -> np.ndarray:
    """Grow a mask by two voxels along the given axes (a box: the mask's neighbours within two voxels on each axis)."""
    result = mask
    for axis in axes:
        source = np.moveaxis(result, axis, 0)
        result = result.copy()
        grown = np.moveaxis(result, axis, 0)
        for shift in range(1, RADIUS + 1):
            grown[shift:] |= source[:-shift]
            grown[:-shift] |= source[shift:]
    return result


def dilation_axes(slice_axis: int, *, in_plane: bool) -> tuple[int, ...]:
    """Axes of an array [z, y, x] to dilate along: those of the slice for a 2D model, all for a 3D model."""
    return tuple(axis for axis in range(3) if not (in_plane and axis == slice_axis))


@dataclass(frozen=True)
class ClassRegion:
    """Where one class lies, cut out with room for the dilation.

    Args:
        value: label value.
        box: slices of the whole array that the masks are cut out with.
        mask: voxels of the class.
        region: the same, dilated.
    """

    value: int
    box: tuple[slice, ...]
    mask: np.ndarray
    region: np.ndarray


def class_regions(labels: np.ndarray, values: Iterable[int], *, axes: Iterable[int]) -> Iterator[ClassRegion]:
    """The regions of the classes that are present in a label map ``[z, y, x]``, one at a time."""
    axes = tuple(axes)
    found = sitk.LabelShapeStatisticsImageFilter()
    found.ComputePerimeterOff()
    found.Execute(sitk.GetImageFromArray(labels))
    for value in values:
        if not found.HasLabel(value):
            continue
        first, size = np.reshape(found.GetBoundingBox(value), (2, 3))[:, ::-1].tolist()
        inner = [slice(start, start + length) for start, length in zip(first, size, strict=True)]
        room = [RADIUS if axis in axes else 0 for axis in range(labels.ndim)]
        box = tuple(slice(max(0, s.start - r), s.stop + r) for s, r in zip(inner, room, strict=True))
        mask = labels[box] == value
        yield ClassRegion(value, box, mask, dilate(mask, axes=axes))


def slice_means(values: np.ndarray, region: np.ndarray, *, slice_axis: int) -> np.ndarray:
    """Mean of a map over a region in every slice; NaN where the region has no voxel in the slice."""
    others = tuple(axis for axis in range(values.ndim) if axis != slice_axis)
    count = region.sum(axis=others)
    total = np.where(region, values, 0).sum(axis=others, dtype=np.float64)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def case_mean(values: np.ndarray, region: np.ndarray) -> float:
    """Mean of a map over a region; over the whole map if the region is empty."""
    return float(values[region].mean(dtype=np.float64) if region.any() else values.mean(dtype=np.float64))
