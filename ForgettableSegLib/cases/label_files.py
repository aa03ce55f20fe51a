"""Reading label maps: whole numbers on the grid of the image, in the values of the task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.files import (
    SEGMENTATION_SUFFIX,
    Header,
    check_finite,
    execute,
    header_of,
    open_volume,
    suffix_of,
    voxels_of,
)
from ForgettableSegLib.cases.findings import CaseError, Finding, FindingCode, colour_image, four_dimensional, note
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.labels import values_present, with_values
from ForgettableSegLib.cases.regrid import check_same_grid, onto_grid, resample_labels
from ForgettableSegLib.cases.task import Task

# Formats that keep floats round whole numbers so far.
_ROUNDING = 1e-3


def read_label_map(path: Path) -> tuple[NDArray[np.integer], Geometry]:
    """Read a label map file.

    Returns:
        Label values `[z, y, x]` as on disk, in the smallest integer type that holds them, and the grid.

    Raises:
        CaseError: if the file is missing or unreadable, has layers or channels, or holds other than whole numbers.
    """
    reader = open_volume(path)
    header = header_of(path, reader)
    if header.channels > 1:
        raise _layered(path, header)
    volume = execute(path, reader)
    voxels = voxels_of(volume, header)[0]
    if voxels.dtype.kind == "f":
        check_finite(voxels, path)
    if voxels.dtype.kind == "f":
        voxels = _whole(voxels, path)
    return voxels.astype(_smallest_integer(voxels.min(), voxels.max())), header.geometry


def _whole(voxels: NDArray[np.floating], path: Path) -> NDArray[np.floating]:
    """Whole numbers that were not stored as such, rounded with a warning; anything else is refused."""
    off = max(float(np.abs(plane - np.rint(plane)).max()) for plane in voxels)
    if not off:
        return voxels
    if off <= _ROUNDING:
        message = f"{path} holds label values that are off whole numbers by up to {off:.1g}; they were rounded."
        note(Finding("warning", FindingCode.LABEL_ROUNDED, "", path, message))
        return np.rint(voxels)
    raise CaseError(
        FindingCode.LABEL_NOT_INTEGER,
        path,
        f"{path} holds values that are not whole numbers, so it is not a label map.",
        hint="Choose the label map instead of the image or a probability map.",
    )


def read_label(
    case: Case, task: Task | None = None, *, geometry: Geometry | None = None, same_grid: bool = False
) -> NDArray[np.integer]:
    """Read the reference segmentation of a case.

    Args:
        case: a case with a label.
        task: if given, values outside it are refused.
        geometry: if given, the grid of the image, onto which the label is brought.
        same_grid: whether a label on another grid is refused instead.

    Returns:
        Label values `[z, y, x]` of the task, see `task_values`.

    Raises:
        CaseError: as `read_label_map`; also without a label, nowhere near the image, or with values outside the task.
    """
    path = label_path(case)
    values, own_geometry = read_label_map(path)
    if geometry is not None and same_grid:
        check_same_grid(path, own_geometry, case.images[0], geometry)
    if geometry is not None:
        values = onto_image(values, own_geometry, case, geometry)
    return task_values(values, case, task)


def task_values(values: NDArray[np.integer], case: Case, task: Task | None = None) -> NDArray[np.integer]:
    """The values of a case's label map as values of the task.

    Args:
        values: as on disk.
        case: says what they stand for.
        task: if given, values outside it are refused.

    Raises:
        CaseError: `LABEL_VALUE_UNKNOWN`.
    """
    path = label_path(case)
    if case.label_values:
        pairs = dict(case.label_values)
        _refuse_unknown(set(values_present(values)) - {0, *pairs}, path, "stand for no class")
        values = with_values(values, pairs)
    if task is not None:
        check_label_values(values, task, path)
    return values


def onto_image(values: NDArray[np.integer], own: Geometry, case: Case, geometry: Geometry) -> NDArray[np.integer]:
    """A label map on the grid of the case's image, see `regrid.onto_grid`."""
    return onto_grid(
        values, own, label_path(case), geometry, case.images[0], resample=resample_labels, case_id=case.case_id
    )


def label_path(case: Case) -> Path:
    """The label file of a case.

    Raises:
        CaseError: `LABEL_MISSING`.
    """
    if case.label is None:
        raise CaseError(
            FindingCode.LABEL_MISSING,
            case.images[0],
            f"Case '{case.case_id}' ({case.images[0]}) has no label.",
            hint="Add its label map, or leave the case out.",
        )
    return case.label


def check_label_values(values: NDArray[np.integer], task: Task, path: Path) -> None:
    """Refuse label values that the task does not know.

    Raises:
        CaseError: `LABEL_VALUE_UNKNOWN`.
    """
    unknown = set(values_present(values)) - set(task.label_values)
    _refuse_unknown(unknown, path, f"task '{task.name}' does not know")


def _refuse_unknown(unknown: set[int], path: Path, why: str) -> None:
    if unknown:
        listed = ", ".join(str(value) for value in sorted(unknown)[:5]) + (" and more" if len(unknown) > 5 else "")
        raise CaseError(
            FindingCode.LABEL_VALUE_UNKNOWN,
            path,
            f"{path} holds label values that {why}: {listed}.",
            hint="Correct the label map, or add a class with that value to the task.",
        )


def _layered(path: Path, header: Header) -> CaseError:
    if suffix_of(path) == SEGMENTATION_SUFFIX:
        return CaseError(
            FindingCode.LABEL_LAYERS,
            path,
            f"{path} holds segments that overlap, in {header.channels} layers.",
            hint="In Slicer, export the segmentation as a label map, in which every voxel belongs to one segment.",
        )
    return four_dimensional(path, header.channels) if header.dimension == 4 else colour_image(path)


def _smallest_integer(low: float, high: float) -> type[np.integer]:
    fitting = (
        kind for kind in (np.uint8, np.uint16, np.int32) if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max
    )
    return next(fitting, np.int64)
