"""DICOM series folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ForgettableSegLib.cases.findings import CaseError, FindingCode

_POSITION, _ORIENTATION = "0020|0032", "0020|0037"
# Distances between slices that differ by more than this part of the usual one mean a missing slice or a varying step.
_UNEVEN = 0.1


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
    _check_slices(folder, series)
    files = series[0]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        # A multi-frame file is a whole volume already, and stacking it would add a fourth axis.
        image = sitk.ReadImage(str(files[0])) if len(files) == 1 else reader.Execute()
    except RuntimeError as error:
        raise CaseError(
            FindingCode.FILE_UNREADABLE,
            folder,
            f"The DICOM series in {folder} cannot be read: a slice is damaged, or slices differ in size.",
            hint="Export the series again.",
        ) from error
    return Series(image, files, len(series), len(files) > 2 and _is_uneven(reader, len(files)))


def _check_slices(folder: Path, series: list[tuple[Path, ...]]) -> None:
    """Refuse folders with damaged slices, which the search for series leaves out without a word."""
    known = {file.name for files in series for file in files} | {"DICOMDIR"}
    for path in sorted(folder.iterdir()):
        if path.name not in known and path.is_file() and _is_dicom(path):
            raise CaseError(
                FindingCode.FILE_UNREADABLE,
                path,
                f"{path} is a damaged DICOM file.",
                hint="Export the series again, or take the file out of the folder if it is not one of its slices.",
            )


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _is_uneven(reader: sitk.ImageSeriesReader, count: int) -> bool:
    """ITK only prints a warning for this, also for the rounding of positions, and stretches the volume evenly."""
    slices = range(count)
    if not all(reader.HasMetaDataKey(index, key) for index in slices for key in (_POSITION, _ORIENTATION)):
        return False
    row, column = np.reshape([float(one) for one in reader.GetMetaData(0, _ORIENTATION).split("\\")], (2, 3))
    positions = [[float(one) for one in reader.GetMetaData(index, _POSITION).split("\\")] for index in slices]
    steps = np.abs(np.diff(np.array(positions) @ np.cross(row, column)))
    usual = np.median(steps)
    return bool(np.abs(steps - usual).max() > _UNEVEN * usual)
