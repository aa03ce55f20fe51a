"""The grid of prepared arrays, and the way between it and the native grid of a case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

from ForgettableSegLib.cases.geometry import SLIGHT_SHEAR, Geometry
from ForgettableSegLib.cases.regrid import resample_image, resample_nearest


@dataclass(frozen=True)
class PreparedGrid:
    """Where prepared voxels lie: axes permuted and flipped to the LPS frame, slice axis first, perhaps resampled.

    Args:
        native: the grid of the case as it was read.
        axes: the native array axis (0 z, 1 y, 2 x) that became each prepared axis S, H, W.
        flips: whether each prepared axis runs against its native axis.
        shape: prepared S, H, W.
        spacing: millimetres between prepared voxels along S, H, W.
    """

    native: Geometry
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @classmethod
    def plan(cls, native: Geometry, spacing: Sequence[float | None], slice_axis: int) -> PreparedGrid:
        """Grid on which a case is prepared.

        An axis is resampled only if that changes its number of voxels: below, grids differ by less than half a voxel
        over the whole axis, and interpolation would only blur. The volume's extent is kept, so that the spacing becomes
        extent / number of voxels, which is within half a voxel in the whole axis of the spacing asked for.

        Args:
            native: the grid of the case.
            spacing: spacing asked for along the LPS array axes z, y, x; None keeps the native one.
            slice_axis: the LPS array axis (0 axial, 1 coronal, 2 sagittal) that becomes S.
        """
        frame = _frame_of(native)
        order, flipped = _lps_frame(frame.straightened().direction if frame.is_sheared else frame.direction)
        to_prepared = [slice_axis, *(axis for axis in range(3) if axis != slice_axis)]
        axes = tuple(order[axis] for axis in to_prepared)
        shape, actual = [], []
        for axis in to_prepared:
            count, step = frame.shape[order[axis]], frame.spacing[2 - order[axis]]
            new_count = count if spacing[axis] is None else max(1, round(count * step / spacing[axis]))
            shape.append(new_count)
            actual.append(step if new_count == count else count * step / new_count)
        return cls(native, axes, tuple(flipped[axis] for axis in to_prepared), tuple(shape), tuple(actual))

    @property
    def frame(self) -> Geometry:
        """The native grid; for one that is much sheared a straight one that holds it, through which voxels go."""
        return _frame_of(self.native)

    @property
    def oriented_shape(self) -> tuple[int, int, int]:
        """Shape after permutation and flips, before resampling."""
        return tuple(self.frame.shape[axis] for axis in self.axes)

    @property
    def is_resampled(self) -> bool:
        """Whether prepared voxels are interpolated; otherwise they are the native voxels in another order."""
        return self.shape != self.oriented_shape

    def orient(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """View of a volume `[z, y, x]` on `frame` along the prepared axes `[S, H, W]`."""
        return np.flip(volume.transpose(self.axes), self._flipped_axes)

    def unorient(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """View of a volume along the prepared axes along those of `frame`: the inverse of `orient`."""
        return np.flip(volume, self._flipped_axes).transpose(np.argsort(self.axes))

    def to_prepared(self, volume: NDArray[np.generic], *, nearest: bool = False) -> NDArray[np.generic]:
        """Bring a native volume `[z, y, x]` onto this grid.

        Returns:
            A new array or a view, `[S, H, W]`, of the same type.
        """
        straight = _between(volume, self.native, self.frame, nearest=nearest)
        return self._resample(self.orient(straight), self.shape, inverse=False, nearest=nearest)

    def to_native(self, volume: NDArray[np.generic], *, nearest: bool = False) -> NDArray[np.generic]:
        """Bring a prepared volume `[S, H, W]` onto the native grid.

        Returns:
            A new array or a view, `[z, y, x]`, of the same type.
        """
        straight = self.unorient(self._resample(volume, self.oriented_shape, inverse=True, nearest=nearest))
        return _between(straight, self.frame, self.native, nearest=nearest)

    def to_native_around(
        self, volume: NDArray[np.generic], box: Sequence[slice]
    ) -> tuple[NDArray[np.generic], tuple[slice, ...]]:
        """What `to_native` makes of a box of prepared voxels, in less time where it is small.

        Args:
            volume: `[S, H, W]`.
            box: slices along S, H, W with start and stop.

        Returns:
            The part `[z, y, x]`, and the slices of the native grid where it lies. All where the native grid is sheared.
        """
        if self.frame != self.native:
            return self.to_native(volume), tuple(slice(0, count) for count in self.native.shape)
        target = []
        for part, count, whole in zip(box, self.shape, self.oriented_shape, strict=True):
            # Centres of native voxels less than one prepared voxel away from the box: linear interpolation reaches no
            # further. At the volume's faces the last voxel holds for what lies outside of it.
            scale, reach = whole / count, int(self.is_resampled)
            low = 0 if part.start == 0 else math.ceil((part.start - reach + 0.5) * scale - 0.5)
            high = whole if part.stop == count else math.floor((part.stop - 1 + reach + 0.5) * scale - 0.5) + 1
            low = min(max(0, low), whole - 1)
            target.append(slice(low, min(whole, max(high, low + 1))))
        resampled = self._resample(volume, self.oriented_shape, inverse=True, nearest=False, part=target)
        native = [slice(0)] * 3
        for axis, flip, part, whole in zip(self.axes, self.flips, target, self.oriented_shape, strict=True):
            native[axis] = slice(whole - part.stop, whole - part.start) if flip else part
        return self.unorient(resampled), tuple(native)

    def index_to_physical(self, index: ArrayLike) -> NDArray[np.float64]:
        """Positions of (continuous) prepared voxel indices.

        Args:
            index: indices S, H, W in the last axis, any leading axes.

        Returns:
            Positions in LPS millimetres.
        """
        return self.native.index_to_physical(self.index_to_native(index))

    def index_to_native(self, index: ArrayLike) -> NDArray[np.float64]:
        """Where (continuous) prepared voxel indices S, H, W lie on the native grid: indices x, y, z."""
        scale = np.array(self.oriented_shape) / np.array(self.shape)
        oriented = (np.asarray(index, dtype=np.float64) + 0.5) * scale - 0.5
        unflipped = np.where(self.flips, np.array(self.oriented_shape) - 1 - oriented, oriented)
        index = unflipped[..., np.argsort(self.axes)][..., ::-1]
        if self.frame == self.native:
            return index
        return self.native.physical_to_index(self.frame.index_to_physical(index))

    def to_dict(self) -> dict[str, Any]:
        """Content for JSON."""
        return {**asdict(self), "native": self.native.to_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PreparedGrid:
        """The grid that `to_dict` stored."""
        others = {key: tuple(value) for key, value in content.items() if key != "native"}
        return cls(native=Geometry.from_dict(content["native"]), **others)

    @property
    def _flipped_axes(self) -> tuple[int, ...]:
        return tuple(axis for axis, flip in enumerate(self.flips) if flip)

    def _resample(
        self,
        volume: NDArray[np.generic],
        shape: tuple[int, int, int],
        *,
        inverse: bool,
        nearest: bool,
        part: Sequence[slice] | None = None,
    ) -> NDArray[np.generic]:
        """Resample within the oriented frame, where the grids differ in scale only (which ITK does fastest).

        With `part` only these slices of what comes out.
        """
        part = [slice(0, count) for count in shape] if part is None else part
        if not self.is_resampled:
            return volume[tuple(part)]
        native_step = [step * n / m for step, n, m in zip(self.spacing, self.shape, self.oriented_shape, strict=True)]
        steps = (self.spacing, native_step) if inverse else (native_step, self.spacing)
        source = sitk.GetImageFromArray(np.ascontiguousarray(volume))
        source.SetSpacing(steps[0][::-1])
        # Both grids begin at the same face of the volume, half a voxel before the first centre.
        source.SetOrigin([step / 2 for step in reversed(steps[0])])
        resampler = sitk.ResampleImageFilter()
        resampler.SetSize([each.stop - each.start for each in reversed(part)])
        resampler.SetOutputSpacing(steps[1][::-1])
        first = [(each.start + 0.5) * step for each, step in zip(part, steps[1], strict=True)]
        resampler.SetOutputOrigin(first[::-1])
        resampler.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
        # Centres may fall outside by rounding; the nearest voxel is the only honest value there.
        resampler.SetUseNearestNeighborExtrapolator(True)
        return sitk.GetArrayFromImage(resampler.Execute(source))


def _between(volume: NDArray[np.generic], own: Geometry, target: Geometry, *, nearest: bool) -> NDArray[np.generic]:
    if own == target:
        return volume
    return resample_nearest(volume, own, target) if nearest else resample_image(volume, own, target)


@lru_cache(maxsize=64)
def _frame_of(native: Geometry) -> Geometry:
    return native if native.shear <= SLIGHT_SHEAR else native.straight_cover()


@lru_cache(maxsize=64)
def _lps_frame(direction: tuple[float, ...]) -> tuple[list[int], list[bool]]:
    """Native array axis that lies along each LPS array axis (z, y, x), and whether it runs the other way."""
    probe = sitk.Image([1, 1, 1], sitk.sitkUInt8)
    probe.SetDirection(direction)
    orient = sitk.DICOMOrientImageFilter()
    orient.SetDesiredCoordinateOrientation("LPS")
    orient.Execute(probe)
    return [2 - axis for axis in reversed(orient.GetPermuteOrder())], list(reversed(orient.GetFlipAxes()))
