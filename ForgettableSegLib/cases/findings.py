"""What can be wrong with a case: one code and one plain sentence for each defect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError


class FindingCode(StrEnum):
    """Kinds of defect that validation finds."""

    FILE_MISSING = "FILE_MISSING"
    FILE_UNREADABLE = "FILE_UNREADABLE"
    FILE_TRUNCATED = "FILE_TRUNCATED"
    FILE_REPEATED = "FILE_REPEATED"
    CASE_ID_REPEATED = "CASE_ID_REPEATED"
    SPACING_INVALID = "SPACING_INVALID"
    AXES_SHEARED = "AXES_SHEARED"
    ORIENTATION_DOUBTFUL = "ORIENTATION_DOUBTFUL"
    FOUR_DIMENSIONAL = "FOUR_DIMENSIONAL"
    COLOUR_IMAGE = "COLOUR_IMAGE"
    CHANNEL_COUNT = "CHANNEL_COUNT"
    NOT_FINITE = "NOT_FINITE"
    CONSTANT_IMAGE = "CONSTANT_IMAGE"
    GRID_DIFFERS = "GRID_DIFFERS"
    GRID_RESAMPLED = "GRID_RESAMPLED"
    SEVERAL_SERIES = "SEVERAL_SERIES"
    SLICES_UNEVEN = "SLICES_UNEVEN"
    LABEL_MISSING = "LABEL_MISSING"
    LABEL_NOT_INTEGER = "LABEL_NOT_INTEGER"
    LABEL_ROUNDED = "LABEL_ROUNDED"
    LABEL_VALUE_UNKNOWN = "LABEL_VALUE_UNKNOWN"
    LABEL_LAYERS = "LABEL_LAYERS"
    LABEL_UNUSUAL = "LABEL_UNUSUAL"
    FOREGROUND_EMPTY = "FOREGROUND_EMPTY"
    CLASS_ABSENT = "CLASS_ABSENT"


_ERROR_CODES = {
    FindingCode.FILE_MISSING: ErrorCode.FILE_MISSING,
    FindingCode.FILE_UNREADABLE: ErrorCode.FILE_UNREADABLE,
    FindingCode.FILE_TRUNCATED: ErrorCode.FILE_UNREADABLE,
}


@dataclass(frozen=True)
class Finding:
    """One defect of one case.

    Args:
        severity: "error" if the case cannot be used, "warning" if it can.
        code: the kind of defect.
        case_id: the case, empty where the whole list is meant.
        path: the file, if one is to blame.
        message: a plain sentence that names the file and says what to do.
    """

    severity: Literal["error", "warning"]
    code: FindingCode
    case_id: str
    path: Path | None
    message: str


_listener: ContextVar[Callable[[Finding], None] | None] = ContextVar("listener", default=None)


@contextmanager
def hearing(listener: Callable[[Finding], None]) -> Iterator[None]:
    """Tell the listener of what reading mends by itself, within this block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def note(finding: Finding) -> None:
    """Tell of something in a file that was mended while it was read; nobody need be listening."""
    listener = _listener.get()
    if listener is not None:
        listener(finding)


class CaseError(ForgettableSegError):
    """A case cannot be used; it carries what a `Finding` needs, so that each sentence is written once.

    Args:
        finding: the kind of defect.
        path: the file to blame.
        message: one plain sentence that names the file.
        hint: what to do about it.
    """

    def __init__(self, finding: FindingCode, path: Path, message: str, *, hint: str = "") -> None:
        super().__init__(_ERROR_CODES.get(finding, ErrorCode.CASE_INVALID), message, hint=hint)
        self.finding = finding
        self.path = path


def not_finite(path: Path, count: int) -> CaseError:
    """The error for an image with NaN or infinite voxels.

    Args:
        path: the image.
        count: how many voxels.
    """
    return CaseError(
        FindingCode.NOT_FINITE,
        path,
        f"{path} holds voxels that are not numbers (NaN or infinite): {count}.",
        hint="Replace them, for example by the value of air.",
    )


def four_dimensional(path: Path, volumes: int) -> CaseError:
    """The error for a file that holds several volumes where one is meant."""
    return CaseError(
        FindingCode.FOUR_DIMENSIONAL,
        path,
        f"{path} is four-dimensional: it holds {volumes} volumes instead of one.",
        hint="Export the volume that is meant to a file of its own.",
    )


def colour_image(path: Path) -> CaseError:
    """The error for a file with several values at each voxel where one is meant."""
    return CaseError(
        FindingCode.COLOUR_IMAGE,
        path,
        f"{path} is a colour image or has several values at each voxel.",
        hint="Use the original grey-value volume instead of a picture of it.",
    )


def unreadable(path: Path, error: RuntimeError) -> CaseError:
    """The error for a file that ITK could not read; its text tells a bad geometry from a bad file."""
    text = str(error).lower()
    if "spacing" in text:
        message, hint = f"{path} states a voxel spacing that is zero or negative.", "Correct the file's header."
        return CaseError(FindingCode.SPACING_INVALID, path, message, hint=hint)
    if "orthonormal" in text or "determinant" in text:
        message, hint = f"{path} has axes that are not at right angles.", "Resample it to a straight grid first."
        return CaseError(FindingCode.AXES_SHEARED, path, message, hint=hint)
    return CaseError(
        FindingCode.FILE_UNREADABLE,
        path,
        f"{path} cannot be read: it is damaged, cut off, or not a NIfTI, NRRD, MetaImage or DICOM volume.",
        hint="Copy or export it again.",
    )
