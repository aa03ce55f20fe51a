"""Case lists in tables (.csv)."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.files import stem_of
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

_COLUMNS = {
    "id": ("id", "case", "case_id", "name"),
    "group": ("group", "patient", "subject", "patient_id"),
    "label": ("label", "reference", "segmentation", "mask"),
    "text": ("text", "report", "tags"),
}
_IMAGE = re.compile(r"images?[ _-]?\d*")


def read_csv(path: Path) -> tuple[Case, ...]:
    """Read cases from a table with a header line.

    Columns, in any order and upper or lower case: `id` (else the image's name), `group` (patient; else the id), `image`
    (several channels: `image_0`, `image_1`, ..., or names separated by `|`), `label`, and `text` (a report or tags).
    Names are relative to the table. Commas, semicolons and tabs separate columns.

    Raises:
        ForgettableSegError: `CASE_LIST_INVALID`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(f"{path} cannot be read as a table; save it as CSV with UTF-8 text.") from error
    try:
        return _cases(text, path)
    except csv.Error as error:
        raise _invalid(f"{path} cannot be read as a table: {error}.") from error


def _cases(text: str, path: Path) -> tuple[Case, ...]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)
    columns = {(name or "").strip().casefold(): name for name in rows.fieldnames or ()}
    images = [name for key, name in columns.items() if _IMAGE.fullmatch(key)]
    if not images:
        raise _invalid(f"{path} has no column 'image'; it has {', '.join(columns) or 'none'}.")
    named = {key: next((columns[one] for one in names if one in columns), None) for key, names in _COLUMNS.items()}
    return tuple(_case(row, images, named, path, line) for line, row in enumerate(rows, start=2) if any(row.values()))


def _case(row: Mapping[str, str], images: list[str], named: Mapping[str, str | None], path: Path, line: int) -> Case:
    def field(key: str) -> str:
        return (row.get(named[key]) or "").strip() if named[key] else ""

    files = [one.strip() for column in images for one in (row[column] or "").split("|") if one.strip()]
    if not files:
        raise _invalid(f"Line {line} of {path} names no image.")
    case_id = field("id") or stem_of(Path(files[0]))
    label = field("label")
    return Case(
        case_id,
        field("group") or case_id,
        tuple(path.parent / one for one in files),
        path.parent / label if label else None,
        text=field("text"),
    )


def _invalid(message: str) -> ForgettableSegError:
    return ForgettableSegError(ErrorCode.CASE_LIST_INVALID, message)
