"""Checks that ITK omits for NIfTI: in silence it reads cut-off files, zeroes NaN, and writes to a full disk."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ForgettableSegLib.cases.findings import CaseError, FindingCode, not_finite

_HEADER_SIZE = 348
_CHUNK = 1 << 20
_FLOATS = {16: "f4", 64: "f8"}


@dataclass(frozen=True)
class _Header:
    spacing: tuple[float, ...]
    offset: int
    voxel_bytes: int
    float_type: np.dtype | None


def is_nifti(path: Path) -> bool:
    """Whether the name says that this is a single-file NIfTI volume."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def check_header(path: Path) -> None:
    """Check that a file has a NIfTI header, which states a possible spacing.

    Raises:
        CaseError: `FILE_TRUNCATED`, `FILE_UNREADABLE` or `SPACING_INVALID`.
    """
    header, _, _ = _scan(path, whole=False)
    if min(header.spacing) <= 0:
        raise CaseError(
            FindingCode.SPACING_INVALID,
            path,
            f"{path} states a voxel spacing of {' x '.join(f'{one:g}' for one in header.spacing)} mm.",
            hint="Every spacing must be above zero; correct the file's header.",
        )


def check_complete(path: Path) -> None:
    """Check that a file holds all voxels that its header promises, that they are numbers, and the checksum of gzip.

    Raises:
        CaseError: `FILE_TRUNCATED`, `FILE_UNREADABLE` or `NOT_FINITE`.
    """
    header, found, bad = _scan(path, whole=True)
    if found < header.voxel_bytes:
        raise _truncated(path)
    if bad:
        raise not_finite(path, bad)


def _scan(path: Path, *, whole: bool) -> tuple[_Header, int, int]:
    """The header of a file, and the number of bytes and of NaN or infinite values among its voxels."""
    found = bad = 0
    try:
        with _open(path) as stream:
            header = _parse(stream.read(_HEADER_SIZE), path)
            stream.seek(header.offset)
            while whole and (chunk := stream.read(_CHUNK)):
                voxels = chunk[: header.voxel_bytes - found]
                found += len(chunk)
                if header.float_type is not None:
                    usable = len(voxels) - len(voxels) % header.float_type.itemsize
                    bad += int(np.count_nonzero(~np.isfinite(np.frombuffer(voxels[:usable], header.float_type))))
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise _truncated(path) from error
    return header, found, bad


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        is_compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if is_compressed else path.open("rb")


def _parse(raw: bytes, path: Path) -> _Header:
    """Fields of a NIfTI-1 header of either byte order.

    Raises:
        CaseError: `FILE_UNREADABLE` if it is something else.
        struct.error: if it is cut off.
    """
    for order in "<>":
        if struct.unpack(f"{order}i", raw[:4]) == (_HEADER_SIZE,):
            rank, *size = struct.unpack(f"{order}8h", raw[40:56])
            kind, bits = struct.unpack(f"{order}2h", raw[70:74])
            spacing = struct.unpack(f"{order}8f", raw[76:108])
            (offset,) = struct.unpack(f"{order}f", raw[108:112])
            float_type = np.dtype(order + _FLOATS[kind]) if kind in _FLOATS else None
            return _Header(spacing[1 : min(rank, 3) + 1], int(offset), prod(size[:rank]) * bits // 8, float_type)
    is_second = raw[4:6] in (b"n+", b"ni") and raw[6:7] == b"2"
    message = f"{path} is a NIfTI-2 volume, which is not supported." if is_second else f"{path} is no NIfTI volume."
    raise CaseError(FindingCode.FILE_UNREADABLE, path, message, hint="Export it again as NIfTI-1 or NRRD.")


def _truncated(path: Path) -> CaseError:
    return CaseError(
        FindingCode.FILE_TRUNCATED,
        path,
        f"{path} is cut off or damaged: it holds less than its header promises.",
        hint="Copy or export it again.",
    )
