"""Prepared cases on disk, memory-mapped, so that memory does not grow with the number of cases."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.content import content_key
from ForgettableSegLib.cases.files import disk_full, is_out_of_space
from ForgettableSegLib.cases.findings import Finding, FindingCode, hearing, note
from ForgettableSegLib.cases.grid import PreparedGrid
from ForgettableSegLib.cases.labels import values_present
from ForgettableSegLib.cases.preprocessing import Prepared, Preprocessing, prepare_case, prepare_label_map
from ForgettableSegLib.cases.synthesis_recipe import Recipe
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

# Written into every key; raise it when entries of the same settings change their layout.
_VERSION = 1
_FOREGROUND_SAMPLES = 2000
_IMAGE, _LABEL, _FOREGROUND, _DESCRIPTION = "image.npy", "label.npy", "foreground.npy", "case.json"
_SAMPLE_BLOCKS, _BLOCK = 16, 4096
_LEFTOVER_AGE_S = 86400.0
_MANY_FILES = 8192


@dataclass(frozen=True)
class PreparedCase:
    """A prepared case whose arrays are read from disk where they are touched.

    Args:
        case_id: the case.
        group: its group.
        image: float32 `[C, S, H, W]`, read-only; uint8 `[1, S', H', W']` of a label-map case, see `Prepared`.
        label: class index, uint8 `[S, H, W]`, read-only; None without a reference.
        foreground: for each foreground class index that occurs, up to 2000 random voxels, int32 `[n, 3]` (S, H, W).
        grid: where the voxels lie; leads back to the native grid.
        key: of the content of its files; another key means that a file has changed.
    """

    case_id: str
    group: str
    image: np.memmap
    label: np.memmap | None
    foreground: Mapping[int, np.memmap]
    grid: PreparedGrid
    key: str

    @property
    def is_label_map(self) -> bool:
        """Whether images are made of it while training."""
        return self.image.dtype == np.uint8

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along S, H, W."""
        return self.grid.spacing

    def release(self) -> None:
        """Give the pages that were read back to the system.

        A page of a mapped file stays in the resident memory of the process once it was touched, so training would in
        the end hold every case. The system keeps dropped pages in its own file cache as long as it has room, so reading
        them again is cheap. Call it when the patches of a batch have been copied out.
        """
        for array in (self.image, self.label, *self.foreground.values()):
            # Windows has no madvise, and trims working sets by itself.
            if array is not None and hasattr(mmap, "MADV_DONTNEED"):
                array._mmap.madvise(mmap.MADV_DONTNEED)


class CaseCache:
    """Folder of prepared cases, keyed by the content of the files and the settings, not by names.

    A case that is linked or copied many times is stored once. Entries appear whole or not at all, so several processes
    may prepare the same cases at the same time.

    Args:
        root: the folder; it is made when first needed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(
        self,
        cases: Iterable[Case],
        task: Task,
        preprocessing: Preprocessing,
        *,
        recipe: Recipe | None = None,
        progress: Callable[[int, int, str], None] | None = None,
        on_error: Callable[[Case, ForgettableSegError], None] | None = None,
    ) -> list[PreparedCase]:
        """Prepare cases, or find them prepared.

        Args:
            cases: a case list, or cases.
            task: channels and classes.
            preprocessing: the settings.
            recipe: of the images that are made from cases that are label maps alone.
            progress: called before each case with the number of cases done, the number of cases and the case's id; and
                at the end. It may raise, for example `Cancelled`: nothing half-written stays.
            on_error: called for a case that cannot be used, which is then left out. Without it the error is raised.

        Returns:
            The prepared cases, in order.

        Raises:
            ForgettableSegError: `DISK_FULL`, `OUTPUT_UNWRITABLE`; and, without `on_error`, what is wrong with a case.
        """
        cases = list(cases)
        folder = self._root / _settings_key(task, preprocessing, None)
        of_label_maps = folder if recipe is None else self._root / _settings_key(task, preprocessing, recipe)
        for one in {folder, of_label_maps}:
            _remove_leftovers(one)
        _allow_many_files()
        prepared = []
        for done, case in enumerate(cases):
            if progress:
                progress(done, len(cases), case.case_id)
            try:
                if case.is_label_map and recipe is not None:
                    prepared.append(
                        self._prepare_one(of_label_maps, case, partial(prepare_label_map, case, recipe, preprocessing))
                    )
                else:
                    prepared.append(self._prepare_one(folder, case, partial(prepare_case, case, task, preprocessing)))
            except ForgettableSegError as error:
                is_of_case = error.code not in (ErrorCode.DISK_FULL, ErrorCode.OUTPUT_UNWRITABLE)
                if on_error is None or not is_of_case:
                    raise
                on_error(case, error)
        if progress:
            progress(len(cases), len(cases), "")
        return prepared

    def _prepare_one(self, folder: Path, case: Case, prepare: Callable[[], Prepared]) -> PreparedCase:
        entry = folder / content_key(case)
        found = _open_entry(entry, case)
        if found is not None:
            return found
        heard: list[Finding] = []
        with hearing(heard.append):
            prepared = prepare()
        try:
            _write_entry(entry, prepared, [_without_names(finding, case) for finding in heard])
        except OSError as error:
            if is_out_of_space(error):
                raise disk_full(entry) from error
            raise ForgettableSegError(
                ErrorCode.OUTPUT_UNWRITABLE,
                f"Prepared cases cannot be stored in {self._root}: {error.strerror or error}.",
                hint="Choose another folder for the cache.",
            ) from error
        written = _open_entry(entry, case)
        if written is None:
            raise ForgettableSegError(
                ErrorCode.OUTPUT_UNWRITABLE,
                f"The prepared case {entry} cannot be read back.",
                hint="The disk may be failing; choose another folder for the cache.",
            )
        return written


def _settings_key(task: Task, preprocessing: Preprocessing, recipe: Recipe | None) -> str:
    """Key of whatever changes the arrays: names, prompts and colours of classes do not."""
    settings = [_VERSION, preprocessing.to_dict(), len(task.channels), task.label_values]
    if recipe is not None:
        settings.append(recipe.key)
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def _without_names(finding: Finding, case: Case) -> dict[str, str]:
    """What was mended in a case's files, to be kept with the entry: the same files may come again by other names."""
    message = finding.message
    for index, path in sorted(enumerate(case.files), key=lambda each: -len(str(each[1]))):
        message = message.replace(str(path), f"\0{index}\0")
    return {"code": finding.code, "message": message}


def _tell_again(kept: Iterable[Mapping[str, str]], case: Case) -> None:
    """Tell of what was mended when the entry was made, of the files as they are called now."""
    for one in kept:
        parts = one["message"].split("\0")
        parts[1::2] = [str(case.files[int(index)]) for index in parts[1::2]]
        note(Finding("warning", FindingCode(one["code"]), case.case_id, None, "".join(parts)))


def _write_entry(entry: Path, prepared: Prepared, findings: list[dict[str, str]]) -> None:
    """Write an entry beside its place and move it there; who comes second keeps the first one's."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    unfinished = entry.with_name(f".{entry.name}-{uuid.uuid4().hex}")
    unfinished.mkdir()
    try:
        arrays = {_IMAGE: prepared.image}
        samples = {}
        if prepared.label is not None:
            arrays[_LABEL] = prepared.label
            samples = _foreground_samples(prepared.label)
        if samples:
            arrays[_FOREGROUND] = np.concatenate(list(samples.values()))
        for name, array in arrays.items():
            _save(unfinished / name, array)
        description = {
            "grid": prepared.grid.to_dict(),
            "files": {name: _fingerprint(unfinished / name) for name in arrays},
            "foreground": [[index, len(voxels)] for index, voxels in samples.items()],
            "findings": findings,
        }
        (unfinished / _DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")
        _move_into_place(unfinished, entry)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move_into_place(unfinished: Path, entry: Path) -> None:
    try:
        os.rename(unfinished, entry)
    except OSError:
        if not entry.is_dir():
            raise


def _allow_many_files() -> None:
    """Every prepared case holds some files open; the usual limits (256 on macOS) are meant for other programs."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _save(path: Path, array: NDArray[np.generic]) -> None:
    """`numpy.save`, which for want of space raises an error without its number."""
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
        stream.write(np.ascontiguousarray(array).data)


def _open_entry(entry: Path, case: Case) -> PreparedCase | None:
    """The entry, or None if there is none; a damaged one is removed."""
    try:
        description = json.loads((entry / _DESCRIPTION).read_text(encoding="utf-8"))
        if any(_fingerprint(entry / name) != stated for name, stated in description["files"].items()):
            raise ValueError
        arrays = {name: np.load(entry / name, mmap_mode="r") for name in description["files"]}
        foreground, start = {}, 0
        for index, count in description["foreground"]:
            foreground[index] = arrays[_FOREGROUND][start : start + count]
            start += count
        grid = PreparedGrid.from_dict(description["grid"])
        _tell_again(description.get("findings", ()), case)
    except FileNotFoundError:
        if not entry.exists():
            return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            message = "The system lets this program open no more files, so not all cases can be prepared."
            hint = "Raise the limit of open files (ulimit -n), or give fewer cases."
            raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, message, hint=hint) from error
    else:
        return PreparedCase(case.case_id, case.group, arrays[_IMAGE], arrays.get(_LABEL), foreground, grid, entry.name)
    _discard(entry)
    return None


def _discard(entry: Path) -> None:
    """Take a damaged entry away; renaming first, so that nobody opens it half removed."""
    trash = entry.with_name(f".{entry.name}-{uuid.uuid4().hex}")
    try:
        os.rename(entry, trash)
    except OSError:
        # Another process was faster, or (on Windows) still reads it; writing the new entry will tell.
        return
    shutil.rmtree(trash, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left behind."""
    for leftover in folder.glob(".*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE_S:
                shutil.rmtree(leftover, ignore_errors=True)


def _fingerprint(path: Path) -> str:
    """Length and hash of blocks from all over a file: finds, at no cost, what a crash cut off or left as zeros."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as stream:
        for offset in np.linspace(0, max(0, size - _BLOCK), _SAMPLE_BLOCKS).astype(np.int64).tolist():
            stream.seek(offset)
            digest.update(stream.read(_BLOCK))
    return digest.hexdigest()


def _foreground_samples(label: NDArray[np.uint8]) -> dict[int, NDArray[np.int32]]:
    """Random voxels (S, H, W) of each foreground class that occurs, the same for the same label."""
    samples = {}
    for index in values_present(label):
        if index == 0:
            continue
        voxels = np.flatnonzero(label == index)
        if len(voxels) > _FOREGROUND_SAMPLES:
            voxels = np.random.default_rng(index).choice(voxels, _FOREGROUND_SAMPLES, replace=False)
        samples[index] = np.stack(np.unravel_index(np.sort(voxels), label.shape), axis=1).astype(np.int32)
    return samples
