"""Intensity normalisation: one affine map for each channel (METHOD A.2)."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

CT_WINDOW = (-1000.0, 400.0)
# Below this share of exact zeros, leaving them out hardly changes the statistics, so they are taken for tissue.
_FEW_ZEROS = 0.01
# Where intensities were centred before, zero is an ordinary value unless this much of the image is exactly zero.
_MANY_ZEROS = 0.25


@dataclass(frozen=True)
class Scaling:
    """The map x -> (x - mean) / deviation."""

    mean: float
    deviation: float

    def apply(self, volume: NDArray[np.float32]) -> None:
        """Scale a volume in place."""
        volume -= np.float32(self.mean)
        volume /= np.float32(self.deviation)


class ForegroundStatistics:
    """Mean and deviation of clipped CT foreground voxels over cases, case by case, so that memory stays that of one.

    Args:
        channels: number of image channels.
    """

    def __init__(self, channels: int) -> None:
        self._moments = [_Moments() for _ in range(channels)]

    def add(self, image: NDArray[np.float32], foreground: NDArray[np.bool_] | None) -> None:
        """Add a case.

        Args:
            image: `[C, z, y, x]`.
            foreground: which voxels count, `[z, y, x]`; None, or none at all, for every voxel.
        """
        counts_all = foreground is None or not foreground.any()
        for moments, channel in zip(self._moments, image, strict=True):
            for index, plane in enumerate(channel):
                moments.add(clip_ct(plane if counts_all else plane[foreground[index]]))

    def result(self) -> tuple[tuple[float, float], ...]:
        """Mean and standard deviation of each channel."""
        return tuple((moments.mean, moments.deviation) for moments in self._moments)


def clip_ct(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clip Hounsfield units to the window of the paper: beyond it lie only air, dense bone and metal."""
    return np.clip(volume, *CT_WINDOW)


def ct_scaling(mean: float, deviation: float) -> Scaling:
    """Scaling of a CT with the statistics of the training cases."""
    return Scaling(mean, deviation)


def image_scaling(channel: NDArray[np.float32]) -> Scaling:
    """z-score of an image by itself, over its non-zero voxels where zero stands for "nothing there".

    Zero counts as background if at least 1 % of the voxels are exactly zero and no voxel is negative, or if at least
    25 % are exactly zero (an image that was centred before and then masked). Otherwise zero is an intensity like any
    other, and all voxels count. This is decided on native voxels, because interpolation hides zeros.

    Args:
        channel: native voxels `[z, y, x]`.
    """
    zeros = 1 - sum(np.count_nonzero(plane) for plane in channel) / channel.size
    has_negative = channel.min() < 0
    is_background = zeros >= (_MANY_ZEROS if has_negative else _FEW_ZEROS)
    moments = _Moments()
    for plane in channel:
        moments.add(plane[plane != 0] if is_background else plane)
    return Scaling(moments.mean, moments.deviation)


class _Moments:
    """Running mean and sum of squared deviations, merged plane by plane (Chan's formula) in double precision."""

    def __init__(self) -> None:
        self._count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        if values.size == 0:
            return
        values = values.astype(np.float64)
        mean = float(values.mean())
        total = self._count + values.size
        shift = mean - self.mean
        self._squares += float(np.square(values - mean).sum()) + shift * shift * self._count * values.size / total
        self.mean += shift * values.size / total
        self._count = total

    @property
    def deviation(self) -> float:
        """Standard deviation; 1 for constant values, which then become zero instead of infinite."""
        deviation = sqrt(self._squares / self._count) if self._count else 0.0
        return deviation if deviation > 1e-6 * abs(self.mean) else 1.0
