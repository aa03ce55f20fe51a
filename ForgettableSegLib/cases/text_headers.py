"""The text headers of MetaImage and NRRD files, where ITK does not tell what they say."""

from __future__ import annotations

import re
from pathlib import Path

from ForgettableSegLib.cases.findings import CaseError, FindingCode

_HEADER_SIZE = 1 << 16
_SPACING = re.compile(r"^(?:ElementSpacing\s*=|spacings\s*:)\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_DATA_FILE = re.compile(r"^(?:ElementDataFile\s*=|data file\s*:)\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)


def check_stated_spacing(path: Path) -> None:
    """Refuse a negative spacing, which ITK takes for a flipped axis without a word, and other programs do not.

    Raises:
        CaseError: `SPACING_INVALID`.
    """
    stated = _SPACING.search(_header(path))
    if stated and any(number.startswith("-") for number in stated[1].split()):
        raise CaseError(
            FindingCode.SPACING_INVALID,
            path,
            f"{path} states a voxel spacing of {stated[1]} mm.",
            hint="Every spacing must be above zero; correct the file's header.",
        )


def data_file_of(path: Path) -> Path | None:
    """The file that holds the voxels of a detached header (.mhd, .nhdr), if it exists."""
    stated = _DATA_FILE.search(_header(path))
    data = path.parent / stated[1] if stated else None
    return data if data is not None and data.is_file() else None


def _header(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(_HEADER_SIZE)
    # A NRRD header ends with an empty line; what follows may be voxels.
    return re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0].decode("latin-1")
