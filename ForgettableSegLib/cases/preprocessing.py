"""From a case as it was read to what a network sees, and back (METHOD A.2 and A.6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.files import check_finite, read_header, read_image
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.grid import PreparedGrid
from ForgettableSegLib.cases.intensity import ForegroundStatistics, Scaling, clip_ct, ct_scaling, image_scaling
from ForgettableSegLib.cases.label_files import read_label
from ForgettableSegLib.cases.labels import to_class_indices
from ForgettableSegLib.cases.recipe import Preprocessing
from ForgettableSegLib.cases.synthesis_recipe import Recipe
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

# More than any scanner makes: a prepared channel of it takes 8 GB.
_MAX_VOXELS = 2**31
# An axis is the slice axis by its spacing only if it is clearly the coarsest one.
_CLEARLY_COARSER = 1.2


@dataclass(frozen=True)
class Prepared:
    """A case as a network sees it.

    Args:
        image: float32 `[C, S, H, W]`, normalised; of a label-map case value indices (`synthesis_recipe`) at the native
            spacing, uint8 `[1, S', H', W']`.
        label: class index, uint8 `[S, H, W]`, or None.
        grid: where the voxels lie; leads back to the native grid.
    """

    image: NDArray[np.float32] | NDArray[np.uint8]
    label: NDArray[np.uint8] | None
    grid: PreparedGrid


class HasGrid(Protocol):
    """A `Prepared` or a `cache.PreparedCase`."""

    @property
    def grid(self) -> PreparedGrid:
        """Where its voxels lie."""


# Where volumes are worth more than slices, see `plan_preprocessing`: voxels an axis, and how long a voxel may be.
LARGEST_IN_3D, SMALLEST_IN_3D, THICKEST_IN_3D = 64.5, 16, 3.0


def plan_preprocessing(
    cases: Sequence[Case],
    task: Task,
    *,
    spatial_dims: int | None,
    slice_axis: int | None = None,
    isotropic: bool = False,
    spacing: Sequence[float] | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Preprocessing:
    """Derive the settings from the training cases: from them alone, or held-out cases would leak into the model.

    The spacing is the median along each LPS axis; with `isotropic` it is one number, the median over all axes and cases
    (the reading of the paper's "unified isotropic" in METHOD A.6 (i)), also through plane. Without it, 2D
    networks keep each case's own distance between slices, because interpolated slices are invented data.

    Args:
        cases: the training cases.
        task: tells the modality and the number of channels.
        spatial_dims: 2 or 3; None takes 3 where a patch of a volume holds the median case whole (64 voxels an axis)
            and its voxels are no more than 3 times as long as wide: there the third axis costs little and tells much.
        slice_axis: axis of the LPS frame; None for the coarsest axis if it is clearly so, else axial.
        isotropic: see above.
        spacing: millimetres along z, y, x instead of the median, 0 for each case's own; None for what is said above.
        progress: called before each case with those done and their number.

    Raises:
        ForgettableSegError: `CASE_LIST_INVALID` without cases; if none can be read, what reading the first raises. A
            case that cannot be read, among others that can, is left to those who read it again to tell of.
    """
    statistics = ForegroundStatistics(len(task.channels))
    spacings, extents = [], []
    problem: ForgettableSegError | None = None
    for index, case in enumerate(cases):
        progress(index, len(cases))
        try:
            geometry = read_header(case.images[0]).geometry
            frame = PreparedGrid.plan(geometry, (None, None, None), 0)
            if task.modality == "CT":
                _add_foreground(statistics, case, task)
        except ForgettableSegError as error:
            problem = problem or error
        else:
            spacings.append(frame.spacing)
            extents.append([count * step for count, step in zip(frame.shape, frame.spacing, strict=True)])
    if problem is not None and not spacings:
        raise problem
    if not spacings:
        raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, "There is no training case to plan for.")
    per_axis = [median(steps) for steps in zip(*spacings, strict=True)]
    if spatial_dims is None:
        spatial_dims = 3 if _suit_volumes(extents, per_axis) else 2
    if slice_axis is None:
        slice_axis = _coarsest_axis(per_axis)
    planned: list[float | None] = [median(sum(spacings, ()))] * 3 if isotropic else list(per_axis)
    if spatial_dims == 2 and not isotropic and slice_axis in (0, 1, 2):
        planned[slice_axis] = None
    if spacing is not None:
        planned = [step or None for step in spacing]
    return Preprocessing(
        spatial_dims=spatial_dims,
        modality=task.modality,
        slice_axis=slice_axis,
        spacing=tuple(planned),
        isotropic=isotropic,
        ct_statistics=statistics.result() if task.modality == "CT" else None,
    )


def prepare(
    image: NDArray[np.float32],
    geometry: Geometry,
    preprocessing: Preprocessing,
    label: NDArray[np.uint8] | None = None,
    *,
    name: str = "The image",
) -> Prepared:
    """Normalise an image and bring it, and its label, onto the prepared grid.

    Nothing is padded: a reader of patches fills what lies outside with `labels.IGNORE_LABEL`.

    Args:
        image: `[C, z, y, x]`; it is not changed.
        geometry: its grid.
        preprocessing: the settings.
        label: class indices `[z, y, x]`, see `labels.to_class_indices`.
        name: how an error calls the image: its file, or its case.

    Raises:
        ForgettableSegError: `CASE_INVALID` for NaN or infinite voxels, a wrong number of channels, or a spacing that
            would ask for an absurd number of voxels.
    """
    grid = PreparedGrid.plan(geometry, preprocessing.spacing, preprocessing.slice_axis)
    if math.prod(grid.shape) > _MAX_VOXELS:
        size = " x ".join(str(count) for count in grid.shape)
        raise ForgettableSegError(
            ErrorCode.CASE_INVALID,
            f"{name} would have {size} voxels at the spacing that the model works at, which is too many.",
            hint="Correct the spacing in its header, crop it, or use another model.",
        )
    if preprocessing.ct_statistics is not None and len(image) != len(preprocessing.ct_statistics):
        raise ForgettableSegError(
            ErrorCode.CASE_INVALID,
            f"{name} has {len(image)} channels, but the model was trained with {len(preprocessing.ct_statistics)}.",
            hint="Give one image for each channel.",
        )
    prepared = np.empty((len(image), *grid.shape), dtype=np.float32)
    for index, channel in enumerate(image):
        scaling = _scaling(channel, index, preprocessing, name)
        clipped = clip_ct(channel) if preprocessing.modality == "CT" else channel
        prepared[index] = grid.to_prepared(clipped)
        # Interpolation weights add up to one, so scaling after it equals scaling before it, and saves a copy.
        scaling.apply(prepared[index])
    prepared_label = None if label is None else np.ascontiguousarray(grid.to_prepared(label, nearest=True))
    return Prepared(prepared, prepared_label, grid)


def prepare_case(case: Case, task: Task, preprocessing: Preprocessing, *, with_label: bool = True) -> Prepared:
    """Read a case and prepare it.

    Args:
        case: the case.
        task: tells the number of channels and the label values.
        preprocessing: the settings.
        with_label: whether the label, if the case has one, is read too.

    Raises:
        ForgettableSegError: whatever reading and preparing raise.
    """
    image, geometry = read_image(case, channels=len(task.channels), same_grid=preprocessing.same_grid)
    label = None
    if with_label and case.label is not None:
        values = read_label(case, task, geometry=geometry, same_grid=preprocessing.same_grid)
        label = to_class_indices(values, task)
    return prepare(image, geometry, preprocessing, label, name=str(case.images[0]))


def prepare_label_map(case: Case, recipe: Recipe, preprocessing: Preprocessing) -> Prepared:
    """Prepare a case that is a label map alone: its value indices keep their spacing, for images are made from them.

    Args:
        case: the case.
        recipe: knows its label values.
        preprocessing: the settings.

    Raises:
        ForgettableSegError: whatever reading it raises.
    """
    indices, geometry = recipe.read(case)
    grid = PreparedGrid.plan(geometry, preprocessing.spacing, preprocessing.slice_axis)
    label = np.ascontiguousarray(grid.to_prepared(recipe.classes[indices], nearest=True))
    return Prepared(np.ascontiguousarray(grid.orient(indices))[None], label, grid)


def restore(values: ArrayLike, prepared: HasGrid) -> NDArray[np.float32]:
    """Bring probabilities from the prepared onto the native grid, linearly (an exact copy where nothing is resampled).

    Args:
        values: float32 `[C, S, H, W]`, an array or a tensor on the CPU.
        prepared: what they were computed from.

    Returns:
        `[C, z, y, x]` on exactly the native grid.
    """
    maps = np.asarray(values)
    restored = np.empty((len(maps), *prepared.grid.native.shape), dtype=maps.dtype)
    for index, one in enumerate(maps):
        restored[index] = prepared.grid.to_native(one)
    return restored


def restore_scalar(values: ArrayLike, prepared: HasGrid, *, nearest: bool = False) -> NDArray[np.float32]:
    """As `restore`, for a single map `[S, H, W]`, as a heatmap is; one of numbers that name things by the nearest.

    Returns `[z, y, x]`.
    """
    return np.ascontiguousarray(prepared.grid.to_native(np.asarray(values), nearest=nearest))


def _scaling(channel: NDArray[np.float32], index: int, preprocessing: Preprocessing, name: str) -> Scaling:
    check_finite(channel, Path(name))
    if preprocessing.modality == "CT":
        return ct_scaling(*preprocessing.ct_statistics[index])
    return image_scaling(channel)


def _add_foreground(statistics: ForegroundStatistics, case: Case, task: Task) -> None:
    image, geometry = read_image(case, channels=len(task.channels))
    label = None if case.label is None else read_label(case, task, geometry=geometry)
    statistics.add(image, None if label is None else label > 0)


def _suit_volumes(extents: Sequence[Sequence[float]], spacing: Sequence[float]) -> bool:
    """Whether a patch of a volume holds the median case (mm along z, y, x) at this spacing."""
    voxels = [median(lengths) / step for lengths, step in zip(zip(*extents, strict=True), spacing, strict=True)]
    is_thick = max(spacing) > THICKEST_IN_3D * min(spacing)
    return not is_thick and max(voxels) <= LARGEST_IN_3D and min(voxels) >= SMALLEST_IN_3D


def _coarsest_axis(spacing: Sequence[float]) -> int:
    coarsest = max(range(3), key=lambda axis: spacing[axis])
    others = [step for axis, step in enumerate(spacing) if axis != coarsest]
    return coarsest if spacing[coarsest] > _CLEARLY_COARSER * max(others) else 0
