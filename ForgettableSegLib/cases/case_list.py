"""Case lists in the layouts that people already have."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ForgettableSegLib.cases.case import Case, CaseList
from ForgettableSegLib.cases.case_table import read_csv
from ForgettableSegLib.cases.dicom import series_files
from ForgettableSegLib.cases.files import SEGMENTATION_SUFFIX, stem_of, suffix_of
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_LABEL_ENDINGS = re.compile(r"[-_.](seg|segmentation|label|labels|labelmap|mask|gt)$", re.IGNORECASE)
_LONGEST_TEXT = 2**16
_FOLDER_PAIRS = (("imagesTr", "labelsTr"), ("images", "labels"))
_INLINE_KEYS = {"id", "group", "image", "images", "label", "reference", "label_values", "text"}


def read_case_list(source: Path | str, *, task: Task | None = None, group_pattern: str | None = None) -> CaseList:
    """Read a case list from whatever layout `source` has.

    Known are: a Medical Segmentation Decathlon or nnU-Net folder (or its dataset.json), a MONAI datalist (.json), a
    table (.csv), a folder with `images` and `labels` in it, two folders "images,labels", a folder of images, a
    DICOM series folder or a folder of them, and a single image.

    What is said of a case is in its entry (`text`), or in a text file beside its first image, of the same name or named
    after the case.

    Args:
        source: the folder or file.
        task: takes precedence over the task that the source describes.
        group_pattern: regular expression that finds the group (patient) in a case id: its first group, else the
            whole match. Without it, groups are what the source says, or each case is its own.

    Raises:
        ForgettableSegError: `FILE_MISSING`, `CASE_LIST_INVALID` or `TASK_INVALID`. Files of single cases are not
            looked at: `validation.validate_cases` does that.
    """
    images, comma, labels = str(source).partition(",")
    # Absolute, because the name of a folder "." would be empty, and names become case ids.
    source = Path(source).absolute()
    # os.path.exists: a name that no file can have is of no file either, where Path.exists raises.
    exists = os.path.exists(source)
    if comma and not exists:
        found = read_folder_pair(Path(images.strip()), Path(labels.strip()), task=task)
    elif not exists:
        raise _missing(source)
    elif source.is_dir():
        found = _read_folder(source, task)
    elif source.suffix.lower() == ".json":
        found = _read_json(source)
    elif source.suffix.lower() in (".csv", ".tsv"):
        found = CaseList(read_csv(source), None, source)
    else:
        found = CaseList((Case(stem_of(source), stem_of(source), (source,)),), None, source)
    if not found.cases:
        raise _invalid(f"{source} holds no case.", "Choose a folder of volumes, a dataset.json, a datalist or a table.")
    found = replace(found, cases=tuple(map(_with_text, found.cases)), **({} if task is None else {"task": task}))
    return found if group_pattern is None else _regroup(found, group_pattern)


def cases_from_dicts(items: Iterable[Mapping[str, Any]], *, folder: Path | None = None) -> CaseList:
    """Cases that stand in a request.

    Args:
        items: `{"id", "group"?, "images": [..] or "image": .., "label"? or "reference"?, "label_values"?, "text"?}`
            each; `label_values` holds the task's value for each value in the label file, where these differ, and `text`
            a report or tags.
        folder: what relative paths are relative to; None for the current folder.

    Raises:
        ForgettableSegError: `CASE_LIST_INVALID`.
    """
    folder = folder or Path()
    cases = []
    for number, item in enumerate(items, start=1):
        if not isinstance(item, Mapping):
            raise _invalid(f"Case {number} must be a JSON object with id and images, not {item!r}.")
        unknown = sorted(set(item) - _INLINE_KEYS)
        if unknown:
            raise _invalid(f"Case {number} cannot have '{unknown[0]}'; it may have {', '.join(sorted(_INLINE_KEYS))}.")
        cases.append(_case_from_entry(item, folder, number))
    return CaseList(tuple(cases), None, folder)


def read_folder_pair(images: Path, labels: Path, *, task: Task | None = None) -> CaseList:
    """Cases from a folder of images and a folder of labels with matching file names.

    Images may have channel suffixes (`_0000`), labels endings such as `_seg` or `_label`. What has no partner becomes a
    case all the same, so that validation can name the missing file.

    Raises:
        ForgettableSegError: `FILE_MISSING` if a folder is.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise _missing(folder)
    by_id = _group_channels(_volumes_in(images), task)
    label_of = {_label_id(path, by_id): path for path in _volumes_in(labels)}
    cases = []
    for case_id in sorted(by_id | label_of):
        label = label_of.get(case_id)
        files = by_id.get(case_id) or (images / label.name,)
        cases.append(Case(case_id, case_id, files, label or labels / f"{case_id}{suffix_of(files[0])}"))
    return CaseList(tuple(cases), task, images)


def _read_folder(folder: Path, task: Task | None) -> CaseList:
    if (folder / "dataset.json").is_file():
        return _read_json(folder / "dataset.json")
    for images, labels in _FOLDER_PAIRS:
        if (folder / images).is_dir() and (folder / labels).is_dir():
            return replace(read_folder_pair(folder / images, folder / labels, task=task), source=folder)
    return CaseList(_unlabelled(folder, task), task, folder)


def _unlabelled(folder: Path, task: Task | None) -> tuple[Case, ...]:
    """Cases of a DICOM series folder, or of a folder of images and DICOM series folders."""
    volumes = [path for path in _volumes_in(folder) if suffix_of(path) not in (SEGMENTATION_SUFFIX, ".dcm")]
    if not volumes and series_files(folder):
        return (Case(folder.name, folder.name, (folder,)),)
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files_of = _group_channels(volumes, task) | {path.name: (path,) for path in inner if series_files(path)}
    return tuple(Case(case_id, case_id, files) for case_id, files in files_of.items())


def _read_json(path: Path) -> CaseList:
    content = _load_json(path)
    if isinstance(content, list):
        content = {"training": content}
    if not isinstance(content, dict):
        raise _invalid(f"{path} is not a list of cases.", "It must be a JSON object with 'training', or a JSON list.")
    has_labels = isinstance(content.get("labels"), Mapping)
    task = Task.from_dataset(content, name=path.parent.name) if has_labels else None
    labelled = [*_entries(content, "training", path), *_entries(content, "validation", path)]
    unlabelled = [*_entries(content, "test", path), *_entries(content, "testing", path)]
    if isinstance(content.get("dataset"), Mapping):
        labelled = [{"id": case_id, **entry} for case_id, entry in content["dataset"].items()]
    elif "file_ending" in content or not (labelled or unlabelled):
        return _read_nnunet(path, content, task)
    entries = labelled or unlabelled
    cases = tuple(_case_from_entry(entry, path.parent, number) for number, entry in enumerate(entries, start=1))
    return CaseList(cases, task, path)


def _entries(content: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    entries = content.get(key) or []
    if not isinstance(entries, list):
        raise _invalid(f"'{key}' in {path} is not a list of cases.", "Write it as in a MONAI datalist.")
    entries = [{"image": entry} if isinstance(entry, str) else entry for entry in entries]
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise _invalid(f"'{key}' in {path} holds something other than cases.", "Each needs an 'image' and a 'label'.")
    return entries


def _case_from_entry(entry: Mapping[str, Any], folder: Path, number: int) -> Case:
    named = entry.get("images") or entry.get("image")
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, (list, tuple)) or not named or not all(isinstance(one, str) and one for one in named):
        raise _invalid(f"Case {number} names no image.", "Give 'image' a file name, or 'images' a list of them.")
    label = entry.get("label") or entry.get("reference")
    if label is not None and not isinstance(label, str):
        raise _invalid(f"The label of case {number} must be the name of one file, not {label!r}.")
    images = tuple(found for one in named for found in _with_channels(folder / one))
    values = _label_values(entry.get("label_values"), number)
    default_id = _strip_channel(stem_of(images[0]), len(images) > 1 or images[0].name != Path(named[0]).name)
    case_id = str(entry.get("id") or default_id)
    text = entry.get("text") or ""
    if not isinstance(text, str):
        raise _invalid(f"The text of case {number} must be a text, not {text!r}.")
    group, label = str(entry.get("group") or case_id), None if label is None else folder / label
    return Case(case_id, group, images, label, values, text.strip())


def _with_text(case: Case) -> Case:
    """The case with what a text file beside its first image says, if it says nothing itself."""
    if case.text:
        return case
    image = case.images[0]
    for name in dict.fromkeys((f"{stem_of(image)}.txt", f"{case.case_id}.txt")):
        path = image.parent / name
        with contextlib.suppress(OSError, ValueError):  # none, or none that can be read: nothing is said
            if path.is_file() and path.stat().st_size <= _LONGEST_TEXT:
                return replace(case, text=path.read_text(encoding="utf-8-sig", errors="replace").strip())
    return case


def _label_values(content: Any, number: int) -> tuple[tuple[int, int], ...]:
    """Pairs of a value in a label file and the task's value, as JSON holds them: `{"1": 2}`."""
    try:
        pairs = {int(found): int(value) for found, value in dict(content or {}).items()}
    except (TypeError, ValueError) as error:
        message = f'The label_values of case {number} must be an object such as {{"1": 2}}, not {content!r}.'
        raise _invalid(message, "Name a value of the label file, and the task's value that it stands for.") from error
    return tuple(sorted(pairs.items()))


def _with_channels(path: Path) -> tuple[Path, ...]:
    """nnU-Net v1 lists `case.nii.gz` where the folder holds `case_0000.nii.gz`, `case_0001.nii.gz`, ..."""
    if os.path.exists(path):
        return (path,)
    pattern = f"{stem_of(path)}_[0-9][0-9][0-9][0-9]{suffix_of(path)}"
    channels = tuple(sorted(path.parent.glob(pattern))) if path.parent.is_dir() else ()
    return channels or (path,)


def _read_nnunet(path: Path, content: Mapping[str, Any], task: Task | None) -> CaseList:
    """nnU-Net v2: cases are what imagesTr and labelsTr hold, with one file for each of the task's channels."""
    if task is None:
        raise _invalid(f"{path} lists no cases and describes no labels.", "It is neither a datalist nor a data set.")
    images, labels = path.parent / "imagesTr", path.parent / "labelsTr"
    ending = str(content.get("file_ending") or ".nii.gz")
    if not images.is_dir():
        raise _missing(images)
    stems = (path.name[: -len(ending)] for path in images.iterdir() if path.name.endswith(ending))
    ids = {match["case"] for stem in stems if (match := _CHANNEL.fullmatch(stem))}
    if labels.is_dir():
        ids |= {path.name[: -len(ending)] for path in labels.iterdir() if path.name.endswith(ending)}
    cases = []
    for case_id in sorted(one for one in ids if not one.startswith(".")):
        files = tuple(images / f"{case_id}_{channel:04d}{ending}" for channel in range(len(task.channels)))
        cases.append(Case(case_id, case_id, files, labels / f"{case_id}{ending}"))
    return CaseList(tuple(cases), task, path.parent)


def _volumes_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if suffix_of(path) and path.name[0] != "." and path.is_file())


def _group_channels(paths: Iterable[Path], task: Task | None) -> dict[str, tuple[Path, ...]]:
    """Files by case id, where `_0000`, `_0001`, ... are channels of a case.

    A numbered series of cases (`scan_0001`, `scan_0002`) looks alike, so the suffix counts as a channel only if every
    file has one and every case has channels 0, 1, ... in the number that the task has, if there is one.
    """
    paths = list(paths)
    matches = [_CHANNEL.fullmatch(stem_of(path)) for path in paths]
    if paths and all(matches):
        grouped: dict[str, list[Path]] = {}
        numbers: dict[str, list[int]] = {}
        for path, match in zip(paths, matches, strict=True):
            grouped.setdefault(match["case"], []).append(path)
            numbers.setdefault(match["case"], []).append(int(match["channel"]))
        count = len(task.channels) if task else len(next(iter(numbers.values())))
        if all(found == list(range(count)) for found in numbers.values()):
            return {case_id: tuple(files) for case_id, files in grouped.items()}
    return {stem_of(path): (path,) for path in paths}


def _label_id(path: Path, known: Mapping[str, object]) -> str:
    stem = stem_of(path)
    shorter = _LABEL_ENDINGS.sub("", stem)
    return shorter if stem not in known and shorter in known else stem


def _strip_channel(stem: str, is_channel: bool) -> str:
    match = _CHANNEL.fullmatch(stem) if is_channel else None
    return match["case"] if match else stem


def _regroup(found: CaseList, pattern: str) -> CaseList:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise _invalid(f"The group pattern '{pattern}' is not a regular expression: {error}.") from error
    cases = []
    for case in found:
        match = expression.search(case.case_id)
        if match is None:
            raise _invalid(f"The group pattern '{pattern}' finds nothing in case id '{case.case_id}'.")
        group = match.group(1) if expression.groups else match.group(0)
        cases.append(replace(case, group=group or case.case_id))
    return replace(found, cases=tuple(cases))


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise _invalid(f"{path} cannot be read as JSON: {error}.", "Correct the file.") from error
    except RecursionError as error:
        raise _invalid(f"{path} cannot be read as JSON: it is nested too deeply.", "Correct the file.") from error


def _missing(path: Path) -> ForgettableSegError:
    return ForgettableSegError(ErrorCode.FILE_MISSING, f"{path} does not exist.", hint="Check the name, or the drive.")


def _invalid(message: str, hint: str = "") -> ForgettableSegError:
    return ForgettableSegError(ErrorCode.CASE_LIST_INVALID, message, hint=hint)
