"""From one voxel grid to another: without loss where the voxels are the same, else resampled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ForgettableSegLib.cases.findings import CaseError, Finding, FindingCode, note
from ForgettableSegLib.cases.geometry import Geometry

# Voxels an axis at which the overlap of two grids is looked at.
_PROBES = 24
# A grid is finer if its voxels are clearly smaller.
_FINER = 0.9

Resample = Callable[[NDArray[np.generic], Geometry, Geometry], NDArray[np.generic]]


def onto_grid(
    volume: NDArray[np.generic],
    own: Geometry,
    path: Path,
    target: Geometry,
    target_path: Path,
    *,
    resample: Resample,
    case_id: str = "",
) -> NDArray[np.generic]:
    """Bring a volume onto the grid of another file.

    The same voxels in another order of axes are only reordered. On any other grid that overlaps they are resampled, and
    a warning names both grids.

    Args:
        volume: `[z, y, x]`, on its own grid.
        own: its grid.
        path: its file.
        target: the grid that is wanted.
        target_path: the file with that grid.
        resample: `resample_labels` or `resample_image`.
        case_id: for the warning.

    Returns:
        `[z, y, x]` on the target's grid, of the same type.

    Raises:
        CaseError: `GRID_DIFFERS` if the grids do not overlap.
    """
    if own.is_same_grid(target):
        return volume
    found = reordered(volume, own, target)
    if found is not None:
        return found
    share = overlap(own, target)
    if not share:
        check_same_grid(path, own, target_path, target)
    message = (
        f"{path} lies on another grid ({own}) than {target_path} ({target}), onto which it was resampled"
        + (f"; it covers {share:.0%} of it" if share < 1 else "")
        + ". Check that the two belong together."
    )
    note(Finding("warning", FindingCode.GRID_RESAMPLED, case_id, path, message))
    return resample(volume, own, target)


def check_same_grid(path: Path, geometry: Geometry, other_path: Path, other: Geometry) -> None:
    """Refuse two files of a case whose voxels do not lie on each other.

    Raises:
        CaseError: `GRID_DIFFERS`.
    """
    if geometry.is_same_grid(other):
        return
    apart = not overlap(geometry, other)
    raise CaseError(
        FindingCode.GRID_DIFFERS,
        path,
        f"{path} does not lie {'anywhere near' if apart else 'on the grid of'} {other_path}: "
        f"its grid is {geometry}, the other one is {other}.",
        hint="Check that the two belong together." if apart else "Resample one onto the other first.",
    )


def reordered(volume: NDArray[np.generic], own: Geometry, target: Geometry) -> NDArray[np.generic] | None:
    """The volume with axes permuted and flipped so that it lies on the target's grid; None if that does not do it."""
    between = np.linalg.solve(_matrix(target), _matrix(own))
    axes = np.abs(between).argmax(axis=1)
    if sorted(axes.tolist()) != [0, 1, 2]:
        return None
    flipped = [between[row, axis] < 0 for row, axis in enumerate(axes)]
    corner = np.zeros(3)
    for row, axis in enumerate(axes):
        corner[axis] = own.size[axis] - 1 if flipped[row] else 0
    direction = np.reshape(own.direction, (3, 3))[:, axes] * np.where(flipped, -1.0, 1.0)
    geometry = Geometry(
        size=tuple(own.size[axis] for axis in axes),
        spacing=tuple(own.spacing[axis] for axis in axes),
        origin=tuple(own.index_to_physical(corner).tolist()),
        direction=tuple(direction.ravel().tolist()),
    )
    if not geometry.is_same_grid(target):
        return None
    order = [2 - int(axis) for axis in reversed(axes)]
    along = [2 - row for row in range(3) if flipped[row]]
    return np.ascontiguousarray(np.flip(volume.transpose(order), along))


def overlap(own: Geometry, target: Geometry) -> float:
    """Share of the target's voxels, 0 to 1, whose centres lie within the other grid."""
    probes = [np.unique(np.linspace(0, count - 1, min(count, _PROBES)).round()) for count in target.size]
    points = target.index_to_physical(np.stack(np.meshgrid(*probes, indexing="ij"), axis=-1))
    index = own.physical_to_index(points.reshape(-1, 3))
    # A voxel reaches half a step beyond its centre; rounding of headers counts as nothing.
    inside = np.all((index >= -0.55) & (index <= np.asarray(own.size) - 0.45), axis=1)
    return float(inside.mean())


def resample_labels(values: NDArray[np.integer], own: Geometry, target: Geometry) -> NDArray[np.integer]:
    """Label map `[z, y, x]` on another grid; outside of its own it is background.

    On a grid that is not finer each voxel takes the nearest value. On a finer one each class is interpolated linearly
    and the largest wins, so that borders do not become stairs.
    """
    if target.voxel_volume > _FINER * own.voxel_volume:
        return resample_nearest(values, own, target)
    result = np.zeros(target.shape, dtype=values.dtype)
    largest = _resample((values == 0).astype(np.float32), own, target, sitk.sitkLinear, 1)
    for value in np.unique(values[values != 0]):
        share = _resample((values == value).astype(np.float32), own, target, sitk.sitkLinear, 0)
        wins = share > largest
        result[wins] = value
        largest[wins] = share[wins]
    return result


def resample_nearest(values: NDArray[np.generic], own: Geometry, target: Geometry) -> NDArray[np.generic]:
    """Volume `[z, y, x]` on another grid, each voxel with the nearest value; outside of its own grid 0."""
    return _resample(values, own, target, sitk.sitkNearestNeighbor, 0)


def resample_image(volume: NDArray[np.generic], own: Geometry, target: Geometry) -> NDArray[np.generic]:
    """Image `[z, y, x]` on another grid, linearly; outside of its own it has its lowest value."""
    return _resample(volume, own, target, sitk.sitkLinear, float(volume.min()))


def _resample(
    volume: NDArray[np.generic], own: Geometry, target: Geometry, interpolator: int, outside: float
) -> NDArray[np.generic]:
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume))
    own.apply_to(image)
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(target.size)
    resampler.SetOutputSpacing(target.spacing)
    resampler.SetOutputOrigin(target.origin)
    resampler.SetOutputDirection(target.direction)
    resampler.SetInterpolator(interpolator)
    resampler.SetDefaultPixelValue(outside)
    return sitk.GetArrayFromImage(resampler.Execute(image))


def _matrix(geometry: Geometry) -> NDArray[np.float64]:
    return np.reshape(geometry.direction, (3, 3)) * np.asarray(geometry.spacing)
