"""DICOM series folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from .findings import CaseError, FindingCode


@dataclass(frozen=True)
class Series:
    """A DICOM series as a volume.

    Args:
        image: the volume.
        files: its slices, in the order of their position.
        series_in_folder: how many series the folder holds; the one with most slices is taken.
        is_uneven: whether the distance between slices varies, as it does where a slice is missing.
    """

    image: sitk.Image
    files: tuple[Path, ...]
    series_in_folder: int
    is_uneven: bool


def series_files(folder: Path) -> list[tuple[Path, ...]]:
    """Files of each DICOM series directly in a folder, the series with most slices first; each sorted by position."""
    ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    names = (sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), one) for one in ids)
    return sorted((tuple(map(Path, files)) for files in names), key=lambda files: (-len(files), files))


def read_series(folder: Path) -> Series:
    """Read the series with most slices of a DICOM folder.

    Raises:
        CaseError: `FILE_UNREADABLE` if there is no series, or a slice cannot be read.
    """
    series = series_files(folder)
    if not series:
        raise CaseError(
            FindingCode.FILE_UNREADABLE,
            folder,
            f"Folder {folder} holds no DICOM series.",
            hint="Choose the folder in which the slices of one series lie.",
        )
    files = series[0]
    try:
        # A multi-frame file is a whole volume already, and stacking it would add a fourth axis.
        image = sitk.ReadImage(str(files[0])) if len(files) == 1 else sitk.ReadImage([str(file) for file in files])
    except RuntimeError as error:
        raise CaseError(
            FindingCode.FILE_UNREADABLE,
            folder,
            f"The DICOM series in {folder} cannot be read: a slice is damaged, or slices differ in size.",
            hint="Export the series again.",
        ) from error
    return Series(image, files, len(series), image.HasMetaDataKey("ITK_non_uniform_sampling_deviation"))
