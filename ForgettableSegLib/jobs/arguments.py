"""The kinds of arguments that requests have, each a type that carries its own check. Standard library only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

FILE_FORMATS = (".nrrd", ".nii.gz")
DICOM_SEG = "dicom-seg"
SEGMENT_FORMATS = (*FILE_FORMATS, DICOM_SEG)
CONVENTIONS = ("ours", "monai", "medpy", "nnunet")
MODEL_ACTIONS = ("list", "show", "install", "export", "remove", "locate")

Check = Callable[[Any], str]
"""Returns what is wrong with a value ("must be text"), or nothing."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        return "must be text and not empty"
    return "must hold no zero character" if "\0" in value else ""


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def _mapping(value: Any) -> str:
    return "" if isinstance(value, Mapping) else "must be a JSON object"


def _one_of(choices: Sequence[str]) -> Check:
    def check(value: Any) -> str:
        return "" if isinstance(value, str) and value in choices else f"must be one of {', '.join(choices)}"

    return check


def _text_or_mapping(value: Any) -> str:
    return "" if isinstance(value, Mapping) or not _text(value) else "must be a path or a JSON object"


def _device(value: Any) -> str:
    names = isinstance(value, str) and (
        value in ("auto", "cpu", "mps", "cuda") or (value.startswith("cuda:") and value[5:].isdecimal())
    )
    return "" if names else "must be auto, cpu, mps, cuda or cuda:<number>"


def _region(value: Any) -> str:
    wrong = "must be two index triples [[x, y, z], [x, y, z]], the first below the second"
    if _region_mm(value):
        return wrong
    indices = [index for corner in value for index in corner]
    return wrong if any(not isinstance(index, int) or index < 0 for index in indices) else ""


def _region_mm(value: Any) -> str:
    wrong = "must be two corners [[x, y, z], [x, y, z]] in millimetres, the first below the second"
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return wrong
    for corner in value:
        if not isinstance(corner, (list, tuple)) or len(corner) != 3 or not all(map(_is_number, corner)):
            return wrong
    return "" if all(low < high for low, high in zip(*value, strict=True)) else wrong


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _shard(value: Any) -> str:
    numbers = value.split("/") if isinstance(value, str) else []
    valid = len(numbers) == 2 and all(number.isdecimal() for number in numbers)
    return "" if valid and 1 <= int(numbers[0]) <= int(numbers[1]) else "must be i/n, the i-th of n parts"


def _seeds(value: Any) -> str:
    valid = isinstance(value, (list, tuple)) and value
    valid = valid and all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**31 for seed in value)
    return "" if valid else "must be a list of whole numbers from 0"


def _names(value: Any) -> str:
    valid = isinstance(value, (list, tuple)) and value and not any(_text(name) for name in value)
    return "" if valid else "must be a list of names"


def _count(value: Any) -> str:
    return "" if isinstance(value, int) and not isinstance(value, bool) and value > 0 else "must be a number from 1"


def _cases(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if not isinstance(value, (list, tuple)) or not value:
        return "must be a path, or a list of cases that is not empty"
    seen: set[str] = set()
    for number, entry in enumerate(value, start=1):
        wrong = _case(entry)
        if wrong:
            return f"is wrong at case {number}: {wrong}"
        if entry["id"] in seen:
            return f"holds the id '{entry['id']}' twice"
        seen.add(entry["id"])
    return ""


def _case(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return "it must be a JSON object"
    unknown = sorted(set(entry) - {"id", "group", "images", "label", "reference", "label_values", "text"})
    if unknown:
        return f"the field '{unknown[0]}' is unknown"
    identifier, images = entry.get("id"), entry.get("images")
    if _text(identifier):
        return "its id must be text and not empty"
    if identifier in (".", "..") or any(character in identifier for character in '/\\:*?"<>|\n\r\t'):
        return f"its id '{identifier}' cannot name a folder"
    if not isinstance(images, (list, tuple)) or not images or any(_text(image) for image in images):
        return f"the images of '{identifier}' must be a list of paths"
    for name in ("group", "label", "reference", "text"):
        if entry.get(name) is not None and _text(entry[name]):
            return f"the {name} of '{identifier}' must be text and not empty"
    values = entry.get("label_values") or {}
    if not isinstance(values, Mapping) or not all(str(key).isdecimal() and not _index(values[key]) for key in values):
        return f"the label_values of '{identifier}' must be an object such as {{\"1\": 2}}"
    return ""


def _index(value: Any) -> str:
    is_index = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return "" if is_index else "must be a whole number from 0"


Text = Annotated[str, _text]
Flag = Annotated[bool, _flag]
Device = Annotated[str, _device]
FileFormat = Annotated[str, _one_of(FILE_FORMATS)]
SegmentFormat = Annotated[str, _one_of(SEGMENT_FORMATS)]
Convention = Annotated[str, _one_of(CONVENTIONS)]
ModelAction = Annotated[str, _one_of(MODEL_ACTIONS)]
Region = Annotated[tuple[tuple[int, ...], ...], _region]
RegionMm = Annotated[tuple[tuple[float, ...], ...], _region_mm]
Shard = Annotated[str, _shard]
Seeds = Annotated[tuple[int, ...], _seeds]
Names = Annotated[tuple[str, ...], _names]
Count = Annotated[int, _count]
Settings = Annotated[Mapping[str, Any], _mapping]
TaskSource = Annotated[str | Mapping[str, Any], _text_or_mapping]
Cases = Annotated[str | tuple[Mapping[str, Any], ...], _cases]
"""A path of a case list (anything that ``read_case_list`` takes), or the cases themselves."""
