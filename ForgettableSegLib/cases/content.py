"""Keys that depend on what files hold, not on where they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.dicom import series_files
from ForgettableSegLib.cases.files import suffix_of
from ForgettableSegLib.cases.findings import CaseError, FindingCode
from ForgettableSegLib.cases.text_headers import data_file_of


def content_key(case: Case) -> str:
    """Hash of the contents of a case's files and the part that each plays.

    Raises:
        CaseError: `FILE_MISSING` or `FILE_UNREADABLE`.
    """
    parts = [*((path, "image") for path in case.images), *([(case.label, "label")] if case.label else [])]
    digest = hashlib.blake2b(digest_size=16)
    for path, part in parts:
        digest.update(f"{part}:{file_key(path)};".encode())
    if case.label_values:
        digest.update(repr(case.label_values).encode())
    return digest.hexdigest()


def file_key(path: Path) -> str:
    """Hash of the content of a file; of its slices, in order, for a DICOM series folder.

    Raises:
        CaseError: `FILE_MISSING` or `FILE_UNREADABLE`.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        for file in _files_of(path):
            # The suffix counts, because it decides how ITK reads the same bytes.
            digest.update(suffix_of(file).encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).digest())
    except FileNotFoundError as error:
        message = f"{path} does not exist."
        raise CaseError(FindingCode.FILE_MISSING, path, message, hint="Check the name, or the drive.") from error
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise CaseError(
            FindingCode.FILE_UNREADABLE, path, message, hint="Check the drive and its permissions."
        ) from error
    return digest.hexdigest()


def _files_of(path: Path) -> tuple[Path, ...]:
    if path.is_dir():
        series = series_files(path)
        return series[0] if series else ()
    if suffix_of(path) in (".mhd", ".nhdr"):
        data = data_file_of(path)
        return (path,) if data is None else (path, data)
    return (path,)
