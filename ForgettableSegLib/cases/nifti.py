"""Checks that ITK omits for NIfTI: in silence it reads cut-off files, zeroes NaN, and writes to a full disk."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ForgettableSegLib.cases.findings import CaseError, FindingCode, not_finite
from ForgettableSegLib.cases.geometry import Geometry

_HEADER_SIZE = 348
_CHUNK = 1 << 20
_TO_LPS = np.diag([-1.0, -1.0, 1.0])  # from RAS, and back
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


@dataclass(frozen=True)
class Orientation:
    """Where a NIfTI header says that its voxels lie, in both ways that it can.

    Args:
        qform, sform: matrices `[3, 4]` from voxel indices to LPS millimetres, None where the code is 0.
    """

    qform: NDArray[np.float64] | None
    sform: NDArray[np.float64] | None

    @classmethod
    def read(cls, path: Path) -> Orientation:
        """Read it from a file whose header was checked."""
        with _open(path) as stream:
            raw = stream.read(_HEADER_SIZE)
        order = "<" if struct.unpack("<i", raw[:4]) == (_HEADER_SIZE,) else ">"
        codes = struct.unpack(f"{order}2h", raw[252:256])
        rows = np.array(struct.unpack(f"{order}12f", raw[280:328]), dtype=np.float64).reshape(3, 4)
        factor, *spacing = struct.unpack(f"{order}4f", raw[76:92])
        q = struct.unpack(f"{order}6f", raw[256:280])
        return cls(_quaternion(q, factor, spacing) if codes[0] > 0 else None, _TO_LPS @ rows if codes[1] > 0 else None)

    def takes_sform(self, geometry: Geometry) -> bool:
        """Whether ITK has read this grid from the sform: it prefers that of a scanner, and else the qform."""
        if self.qform is None or self.sform is None:
            return self.sform is not None
        corners = _corners(geometry.size)
        read = geometry.index_to_physical(corners[:, :3]).T
        apart = [np.linalg.norm(form @ corners.T - read, axis=0).max() for form in (self.sform, self.qform)]
        return bool(apart[0] <= apart[1])

    def warning(self, path: Path, geometry: Geometry) -> str:
        """A sentence where the orientation is unknown or stated in two ways that differ, else nothing.

        Args:
            path: the file.
            geometry: as ITK has read it.
        """
        if self.qform is None and self.sform is None:
            return (
                f"{path} does not say how it lies in the patient (qform and sform have code 0), so left and right may "
                f"be swapped. Export it again with its orientation."
            )
        if self.qform is None or self.sform is None:
            return ""
        corners = _corners(geometry.size)
        places = self.qform @ corners.T, self.sform @ corners.T
        apart = np.linalg.norm(places[0] - places[1], axis=0)
        if apart.max() <= max(min(geometry.spacing) / 2, 0.01):
            return ""
        worst = int(apart.argmax())
        by_q, by_s = (", ".join(f"{value:.4g}" for value in place[:, worst]) for place in places)
        corner = ", ".join(f"{index:.0f}" for index in corners[worst, :3])
        return (
            f"{path} states two places: its corner ({corner}) lies at ({by_q}) mm by its qform and at ({by_s}) mm by "
            f"its sform, {apart.max():.3g} mm apart. The {'s' if self.takes_sform(geometry) else 'q'}form was taken."
        )

    def sheared(self, geometry: Geometry) -> Geometry | None:
        """The grid of an sform whose axes are not at right angles, which ITK straightens in silence; else None."""
        if not self.takes_sform(geometry):
            return None
        spacing = np.linalg.norm(self.sform[:, :3], axis=0)
        if not spacing.all():
            return None
        direction = self.sform[:, :3] / spacing
        stated = Geometry(
            size=geometry.size,
            spacing=tuple(spacing.tolist()),
            origin=tuple(self.sform[:, 3].tolist()),
            direction=tuple(direction.ravel().tolist()),
        )
        return stated if stated.is_sheared and np.linalg.det(direction) else None


def _corners(size: Sequence[int]) -> NDArray[np.float64]:
    """Indices x, y, z, 1 of the eight corners `[8, 4]`."""
    return np.array([[*corner, 1.0] for corner in product(*((0, count - 1) for count in size))])


def write_sform(path: Path, geometry: Geometry) -> None:
    """State a grid in the sform of a NIfTI file that was written without shear, which ITK cannot write."""
    is_compressed = path.name.lower().endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if is_compressed else path.read_bytes())
    matrix = np.reshape(geometry.direction, (3, 3)) * np.asarray(geometry.spacing)
    rows = _TO_LPS @ np.column_stack([matrix, geometry.origin])
    struct.pack_into("<2h", content, 252, 0, 1)
    struct.pack_into("<12f", content, 280, *rows.ravel().tolist())
    path.write_bytes(gzip.compress(content, 1) if is_compressed else bytes(content))


def _quaternion(q: Sequence[float], factor: float, spacing: Sequence[float]) -> NDArray[np.float64]:
    """The qform as a matrix `[3, 4]` in LPS (NIfTI-1, method 2)."""
    b, c, d, *offset = q
    a = max(0.0, 1 - b * b - c * c - d * d) ** 0.5
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    steps = np.asarray(spacing) * [1, 1, -1 if factor < 0 else 1]
    return _TO_LPS @ np.column_stack([rotation * steps, offset])


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
