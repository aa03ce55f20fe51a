"""Checks that ITK omits for NIfTI: it reads truncated files, and writes to a full disk, without a word."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from .findings import CaseError, FindingCode

# Long enough for NIfTI-1 (348 bytes) and NIfTI-2.
_HEADER_SIZE = 540
_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Header:
    spacing: tuple[float, ...]
    bytes_needed: int


def is_nifti(path: Path) -> bool:
    """Whether the name says that this is a single-file NIfTI volume."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def check_header(path: Path) -> None:
    """Check that a file has a NIfTI header, which states a possible spacing.

    Raises:
        CaseError: `FILE_TRUNCATED`, `FILE_UNREADABLE` or `SPACING_INVALID`.
    """
    header, _ = _scan(path, whole=False)
    if min(header.spacing) <= 0:
        raise CaseError(
            FindingCode.SPACING_INVALID,
            path,
            f"{path} states a voxel spacing of {' x '.join(f'{one:g}' for one in header.spacing)} mm.",
            hint="Every spacing must be above zero; correct the file's header.",
        )


def check_complete(path: Path) -> None:
    """Check that a file holds all voxels that its header promises, and (compressed files) its checksum.

    Raises:
        CaseError: `FILE_TRUNCATED` or `FILE_UNREADABLE`.
    """
    header, found = _scan(path, whole=True)
    if found < header.bytes_needed:
        raise _truncated(path)


def _scan(path: Path, *, whole: bool) -> tuple[_Header, int]:
    """The header of a file, and the number of bytes read (uncompressed)."""
    try:
        with _open(path) as stream:
            start = stream.read(_HEADER_SIZE)
            found = len(start)
            while whole and (chunk := stream.read(_CHUNK)):
                found += len(chunk)
        return _parse(start), found
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise _truncated(path) from error
    except ValueError as error:
        raise CaseError(
            FindingCode.FILE_UNREADABLE,
            path,
            f"{path} is named like a NIfTI volume, but is none.",
            hint="Export it again from the program that wrote it.",
        ) from error


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        is_compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if is_compressed else path.open("rb")


def _parse(raw: bytes) -> _Header:
    """Fields of a NIfTI-1 or NIfTI-2 header of either byte order.

    Raises:
        ValueError: if this is no NIfTI header.
        struct.error: if it is cut off.
    """
    for order in "<>":
        (length,) = struct.unpack(f"{order}i", raw[:4])
        if length == 348:
            dimensions = struct.unpack(f"{order}8h", raw[40:56])
            (bits,) = struct.unpack(f"{order}h", raw[72:74])
            spacing = struct.unpack(f"{order}8f", raw[76:108])
            (offset,) = struct.unpack(f"{order}f", raw[108:112])
        elif length == 540:
            (bits,) = struct.unpack(f"{order}h", raw[14:16])
            dimensions = struct.unpack(f"{order}8q", raw[16:80])
            spacing = struct.unpack(f"{order}8d", raw[104:168])
            (offset,) = struct.unpack(f"{order}q", raw[168:176])
        else:
            continue
        rank = dimensions[0]
        return _Header(spacing[1 : min(rank, 3) + 1], int(offset) + prod(dimensions[1 : rank + 1]) * bits // 8)
    raise ValueError


def _truncated(path: Path) -> CaseError:
    return CaseError(
        FindingCode.FILE_TRUNCATED,
        path,
        f"{path} is cut off or damaged: it holds less than its header promises.",
        hint="Copy or export it again.",
    )
