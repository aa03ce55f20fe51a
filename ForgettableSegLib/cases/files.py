"""Reading and writing volumes with SimpleITK, with a plain sentence for every way in which a file can be bad."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.dicom import read_series
from ForgettableSegLib.cases.findings import (
    CaseError,
    Finding,
    FindingCode,
    colour_image,
    four_dimensional,
    not_finite,
    note,
    unreadable,
)
from ForgettableSegLib.cases.geometry import SLIGHT_SHEAR, Geometry
from ForgettableSegLib.cases.nifti import Orientation, check_complete, check_header, is_nifti, write_sform
from ForgettableSegLib.cases.regrid import check_same_grid, onto_grid, resample_image
from ForgettableSegLib.cases.text_headers import check_stated_spacing
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")
SEGMENTATION_SUFFIX = ".seg.nrrd"
# Formats that are one file, so that a volume appears under its name at once and whole.
_WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha")
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Problems reach the user as sentences; ITK's own lines would only clutter the streams.
sitk.ProcessObject.GlobalWarningDisplayOff()
# ITK refuses a NIfTI whose axes are off right angles by a little; its grid is read here as the header states it.
os.environ.setdefault("ITK_NIFTI_SFORM_PERMISSIVE", "1")


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its voxels are read.

    Args:
        geometry: the grid of one channel.
        channels: number of values at each voxel, whether stored as a vector or along a fourth axis.
        dimension: number of axes in the file (2, 3 or 4).
        is_vector: whether channels are stored together at each voxel.
        pixel_id: SimpleITK's pixel type.
    """

    geometry: Geometry
    channels: int
    dimension: int
    is_vector: bool
    pixel_id: int


def suffix_of(path: Path) -> str:
    """The known image suffix that a file name ends with (".seg.nrrd" included), or an empty string."""
    name = path.name.lower()
    return next((suffix for suffix in (SEGMENTATION_SUFFIX, *IMAGE_SUFFIXES) if name.endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """File name without its image suffix: `stem_of("a/case_1.nii.gz") == "case_1"`."""
    return path.name[: -len(suffix_of(path)) or None]


def read_header(path: Path) -> Header:
    """Read the header of an image file, or a DICOM series folder.

    Raises:
        CaseError: if the file is missing or unreadable, or cannot be laid on a 3D grid.
    """
    return header_of(path, open_volume(path))


def read_image(
    case: Case, *, channels: int | None = None, same_grid: bool = False
) -> tuple[NDArray[np.float32], Geometry]:
    """Read the image of a case.

    Args:
        case: its images are one file a channel, or one file with all channels.
        channels: how many channels there must be; checked before voxels are read.
        same_grid: whether channels on another grid than the first are refused instead of resampled.

    Returns:
        Voxels `[C, z, y, x]` and the grid they lie on.

    Raises:
        CaseError: if a file is missing or unreadable, there are more or fewer channels, they hold the
            same value everywhere, or they lie on grids that do not overlap or (`same_grid`) differ.
    """
    readers = [open_volume(path) for path in case.images]
    headers = [header_of(path, reader) for path, reader in zip(case.images, readers, strict=True)]
    _check_channels(case, headers, channels)
    geometry = headers[0].geometry
    _tell_shear(case.images[0], geometry)
    image = np.empty((sum(header.channels for header in headers), *geometry.shape), dtype=np.float32)
    start = 0
    for path, reader, header in zip(case.images, readers, headers, strict=True):
        if same_grid:
            check_same_grid(path, header.geometry, case.images[0], geometry)
        if isinstance(reader, sitk.ImageFileReader):
            # Converting while reading saves a second copy in the file's own type, which is often float64.
            reader.SetOutputPixelType(sitk.sitkVectorFloat32 if header.is_vector else sitk.sitkFloat32)
        volume = execute(path, reader)
        for index, channel in enumerate(voxels_of(volume, header), start):
            _check_contrast(channel, path)
            image[index] = onto_grid(
                channel, header.geometry, path, geometry, case.images[0], resample=resample_image, case_id=case.case_id
            )
        start += header.channels
    return image, geometry


def check_finite(volume: NDArray[np.floating], path: Path) -> None:
    """Refuse a volume `[z, y, x]` with NaN or infinite voxels.

    Raises:
        CaseError: `NOT_FINITE`.
    """
    bad = sum(int(np.count_nonzero(~np.isfinite(plane))) for plane in volume)
    if bad:
        raise not_finite(path, bad)


def write_volume(path: Path, array: NDArray[np.generic], geometry: Geometry) -> None:
    """Write a volume under its name at once and whole, or not at all.

    Args:
        path: its suffix (.nii.gz, .nii, .nrrd, .seg.nrrd, .mha) decides the format; missing folders are made.
        array: `[z, y, x]`, or `[C, z, y, x]` for a file with several channels; bool and float16 are widened.
        geometry: the grid.

    Raises:
        ForgettableSegError: `DISK_FULL`, or `OUTPUT_UNWRITABLE`.
    """
    suffix = suffix_of(path)
    if not suffix.endswith(_WRITABLE):
        raise ForgettableSegError(
            ErrorCode.OUTPUT_UNWRITABLE,
            f"{path} does not name a kind of file that volumes can be written to.",
            hint=f"Use one of {', '.join(_WRITABLE)}.",
        )
    widened = array.astype({"bool": np.uint8, "float16": np.float32}.get(array.dtype.name, array.dtype), copy=False)
    is_vector = array.ndim == 4
    needs_sform = is_nifti(path) and geometry.is_sheared
    image = sitk.GetImageFromArray(np.moveaxis(widened, 0, -1) if is_vector else widened, isVector=is_vector)
    (geometry.straightened() if needs_sform else geometry).apply_to(image)
    unfinished = path.with_name(f".{uuid.uuid4().hex}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Level 1: label maps and heatmaps hardly get smaller above it, but writing gets several times slower.
        sitk.WriteImage(image, str(unfinished), useCompression=True, compressionLevel=1)
        if needs_sform:
            write_sform(unfinished, geometry)
        if is_nifti(unfinished):
            check_complete(unfinished)
        is_on_grid = read_header(unfinished).geometry.is_same_grid(geometry)
        if is_on_grid:
            os.replace(unfinished, path)
    except (OSError, RuntimeError, ForgettableSegError) as error:
        raise _unwritten(path, error, array.nbytes) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    if not is_on_grid:
        raise ForgettableSegError(
            ErrorCode.CASE_INVALID,
            f"{path.name} cannot hold this volume, because its axes are not at right angles, as NIfTI wants them.",
            hint="Write .nrrd or .mha instead.",
        )


def disk_full(path: Path) -> ForgettableSegError:
    """The error for a disk that has no room for `path`."""
    return ForgettableSegError(
        ErrorCode.DISK_FULL, f"There is not enough disk space to write {path}.", hint="Free some space and try again."
    )


def is_out_of_space(error: BaseException) -> bool:
    """Whether an error of the operating system means that the disk, a quota or the file system is full."""
    return isinstance(error, OSError) and error.errno in _OUT_OF_SPACE


def open_volume(path: Path) -> sitk.ImageFileReader | sitk.Image:
    """A reader whose header was read, or the image of a DICOM series, which has no header of its own."""
    if not os.path.exists(path):
        raise CaseError(FindingCode.FILE_MISSING, path, f"{path} does not exist.", hint="Check the name, or the drive.")
    if path.is_dir():
        return read_series(path).image
    if is_nifti(path):
        check_header(path)
    elif suffix_of(path) not in ("", ".dcm"):
        check_stated_spacing(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise unreadable(path, error) from error
    return reader


def execute(path: Path, reader: sitk.ImageFileReader | sitk.Image) -> sitk.Image:
    """Read the voxels of an opened volume.

    Raises:
        CaseError: `FILE_UNREADABLE` or `FILE_TRUNCATED`.
    """
    if isinstance(reader, sitk.Image):
        return reader
    if is_nifti(path):
        check_complete(path)
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise unreadable(path, error) from error


def header_of(path: Path, reader: sitk.ImageFileReader | sitk.Image) -> Header:
    """What an opened volume says of itself; a two-dimensional one is a volume of one slice."""
    size = reader.GetSize()
    dimension = reader.GetDimension()
    is_reader = isinstance(reader, sitk.ImageFileReader)
    components = reader.GetNumberOfComponents() if is_reader else reader.GetNumberOfComponentsPerPixel()
    if dimension == 2:
        (a, b, c, d), origin, spacing = reader.GetDirection(), reader.GetOrigin(), reader.GetSpacing()
        geometry = Geometry((*size, 1), (*spacing, 1.0), (*origin, 0.0), (a, b, 0.0, c, d, 0.0, 0.0, 0.0, 1.0))
    elif dimension in (3, 4):
        direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
        spacing, origin = reader.GetSpacing()[:3], reader.GetOrigin()[:3]
        geometry = Geometry(tuple(size[:3]), tuple(spacing), tuple(origin), tuple(direction.ravel().tolist()))
        geometry = _as_stated(path, geometry) if is_nifti(path) and is_reader else geometry
    else:
        raise CaseError(
            FindingCode.FOUR_DIMENSIONAL, path, f"{path} has {dimension} axes.", hint="Export one volume to each file."
        )
    channels = components * (size[3] if dimension == 4 else 1)
    return Header(geometry, channels, dimension, components > 1, reader.GetPixelID())


def _as_stated(path: Path, geometry: Geometry) -> Geometry:
    """The grid that a NIfTI header states, sheared if it is; what is doubtful about it is told."""
    orientation = Orientation.read(path)
    if warning := orientation.warning(path, geometry):
        note(Finding("warning", FindingCode.ORIENTATION_DOUBTFUL, "", path, warning))
    return orientation.sheared(geometry) or geometry


def _tell_shear(path: Path, geometry: Geometry) -> None:
    if not geometry.is_sheared:
        return
    how = "The nearest right angles were taken" if geometry.shear <= SLIGHT_SHEAR else "It is resampled for the network"
    message = (
        f"{path} has axes that are not at right angles (by {geometry.shear:.2g}), as tilted CT has. {how}; "
        f"results lie on its own grid."
    )
    note(Finding("warning", FindingCode.AXES_SHEARED, "", path, message))


def _check_contrast(volume: NDArray[np.floating], path: Path) -> None:
    if volume.min() == volume.max():
        raise CaseError(
            FindingCode.CONSTANT_IMAGE,
            path,
            f"{path} holds the same value everywhere, so it shows nothing.",
            hint="Check that the right file was exported.",
        )


def voxels_of(volume: sitk.Image, header: Header) -> NDArray[np.generic]:
    """Voxels `[C, z, y, x]` as a view of the image's memory: the caller must hold the image while it uses them."""
    array = sitk.GetArrayViewFromImage(volume)
    if header.is_vector:
        array = np.moveaxis(array, -1, 0)
    return array.reshape(header.channels, *header.geometry.shape)


def _check_channels(case: Case, headers: list[Header], channels: int | None) -> None:
    found = sum(header.channels for header in headers)
    if channels is None or found == channels:
        return
    path, header = max(zip(case.images, headers, strict=True), key=lambda pair: pair[1].channels)
    if header.dimension == 4:
        raise four_dimensional(path, header.channels)
    if header.is_vector and header.pixel_id == sitk.sitkVectorUInt8 and header.channels in (3, 4):
        raise colour_image(path)
    raise CaseError(
        FindingCode.CHANNEL_COUNT,
        path,
        f"Case '{case.case_id}' ({path}) has {found} of the task's {channels} image channels."
        if found < channels
        else f"Case '{case.case_id}' ({path}) has {found} image channels, but the task has only {channels}.",
        hint="Give one file for each channel of the task, or one file that holds them all.",
    )


def _unwritten(path: Path, error: Exception, size: int) -> ForgettableSegError:
    """ITK does not say why it could not write, so the room that is left decides."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if is_out_of_space(error) or shutil.disk_usage(folder).free < size:
        return disk_full(path)
    return ForgettableSegError(
        ErrorCode.OUTPUT_UNWRITABLE, f"{path} could not be written.", hint="Choose a folder in which you may write."
    )
