"""The files of a package, out of a folder or a zip archive that nobody has reason to trust."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.models.card import check_card, invalid, parse_card

CARD = "model.json"
WEIGHTS = "weights.safetensors"
DOCUMENTS = ("README.md", "LICENSE.txt")
# Far above any model that can be trained here, far below what fills a disk or a memory.
LARGEST = {CARD: 2**20, WEIGHTS: 2**31, **dict.fromkeys(DOCUMENTS, 2**20)}
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy")
# Weights do not compress, and no text compresses like this.
_LARGEST_RATIO = 100
# What operating systems leave behind in folders.
_DROPPINGS = {".DS_Store", "Thumbs.db", "desktop.ini"}
_OUTSIDE = re.compile(r"^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)")


def read_files(path: Path, source: str, only: Collection[str] = tuple(LARGEST)) -> dict[str, bytes]:
    """Content of each file of the package.

    Args:
        path: a folder, or a ``.zip`` file with the same files at its top or in one folder.
        source: how a sentence names the package.
        only: names of the files to read, all of them by default; the others are looked for and checked by their name.

    Raises:
        ForgettableSegError: MODEL_INVALID, one sentence for each thing that can be wrong.
    """
    sizes = file_sizes(path, source)
    wanted = [name for name in sizes if name in only]
    try:
        if path.is_dir():
            return {name: (path / name).read_bytes() for name in wanted}
        with zipfile.ZipFile(path) as archive:
            entries = _check_entries(archive.infolist(), source)
            return {name: _read_entry(archive, entries[name], source) for name in wanted}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise _unreadable(path, source, error) from error


def file_sizes(path: Path, source: str) -> dict[str, int]:
    """Bytes of each file of the package, as a folder or an archive's table tells them; nothing is read.

    Raises:
        ForgettableSegError: MODEL_INVALID, one sentence for each thing that can be wrong.
    """
    check_not_pickle(path.name, source)
    try:
        if path.is_dir():
            sizes = _folder_sizes(path, source)
        elif path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = _check_entries(archive.infolist(), source)
            sizes = {name: entry.file_size for name, entry in entries.items()}
        else:
            raise invalid(source, "it is neither a folder nor a zip archive")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise _unreadable(path, source, error) from error
    for name in (CARD, WEIGHTS):
        if name not in sizes:
            raise invalid(source, f"it holds no {name}")
    return sizes


def check_sizes(sizes: Mapping[str, int], stated: Any, source: str) -> None:
    """Every file but the card is there, and as long as the card states.

    Args:
        sizes: see `file_sizes`.
        stated: ``files`` of the card.
        source: how a sentence names the package.

    Raises:
        ForgettableSegError: MODEL_INVALID.
    """
    if not isinstance(stated, dict) or set(stated) != set(sizes) - {CARD}:
        raise invalid(source, "'files' in its model.json does not name the files beside it")
    for name, facts in stated.items():
        if not isinstance(facts, dict) or set(facts) != {"sha256", "bytes"} or not isinstance(facts["bytes"], int):
            raise invalid(source, f"'files' in its model.json lacks the hash or the size of {name}")
        size = sizes[name]
        if size < facts["bytes"]:
            raise invalid(source, f"its {name} is cut off ({size} of {facts['bytes']} bytes)", "Get it again.")
        if size > facts["bytes"]:
            raise invalid(source, f"its {name} has {size} bytes, more than the {facts['bytes']} that its card states")


def check_hashes(files: Mapping[str, bytes], stated: Mapping[str, Mapping[str, Any]], source: str) -> None:
    """Every file but the card is what the card states; its sizes are checked before.

    Raises:
        ForgettableSegError: MODEL_INVALID.
    """
    for name, facts in stated.items():
        if hashlib.sha256(files[name]).hexdigest() != facts["sha256"]:
            raise invalid(source, f"its {name} was changed after it was written (its hash differs)", "Get it again.")


def read_card(path: Path, *, verify: bool) -> dict[str, Any]:
    """The checked card of a package, without ``files``. Takes no torch, and no time.

    Args:
        path: its folder or ``.zip`` file.
        verify: whether the other files are read too and compared with the hashes that the card states; else only their
            sizes are compared. What the tensors say is for `ModelPackage.read` to check.

    Raises:
        ForgettableSegError: MODEL_MISSING where there is nothing, else MODEL_INVALID, one sentence for each thing that
            can be wrong.
    """
    source = f"The model {path.name}"
    if not path.exists():
        raise ForgettableSegError(ErrorCode.MODEL_MISSING, f"There is no model at {path}.")
    card = parse_card(read_files(path, source, only=(CARD,))[CARD], source)
    stated = card.pop("files", None)
    check_card(card, source)
    check_sizes(file_sizes(path, source), stated, source)
    if verify:
        check_hashes(read_files(path, source), stated, source)
    return card


def _unreadable(path: Path, source: str, error: Exception) -> ForgettableSegError:
    if path.is_dir():
        return invalid(source, f"it cannot be read ({getattr(error, 'strerror', error)})")
    return invalid(source, f"the archive is damaged ({error})", "Get it again.")


def check_not_pickle(name: str, source: str) -> None:
    """Refuse by its name a file that could run code when it is loaded."""
    if name.lower().endswith(_PICKLES):
        reason = f"'{name}' is a kind of file that can run code when it is loaded"
        raise invalid(source, reason, "Only packages with safetensors weights are read.")


def check_not_pickled(weights: bytes, source: str) -> None:
    """Refuse by its content a pickle, or an archive of them, that is called weights.safetensors."""
    # The first eight bytes of a safetensors file are a length, which may look like anything; then comes a brace.
    pickled = weights[:1] == b"\x80" and weights[8:9] != b"{"
    if pickled or weights.startswith((b"PK\x03\x04", b"\x93NUMPY")):
        reason = f"its {WEIGHTS} is a pickle or another kind of file that can run code when it is loaded"
        raise invalid(source, reason, "Only safetensors weights are read.")


def _folder_sizes(folder: Path, source: str) -> dict[str, int]:
    sizes = {}
    for entry in sorted(folder.iterdir()):
        if entry.name in _DROPPINGS:
            continue
        if entry.is_symlink():
            raise invalid(source, f"'{entry.name}' is a link to another place")
        _check_known(entry.name, source)
        if not entry.is_file():  # reading a pipe would wait for ever
            raise invalid(source, f"'{entry.name}' is not a file")
        sizes[entry.name] = entry.stat().st_size
        _check_size(entry.name, sizes[entry.name], source)
    return sizes


def _check_entries(infos: list[zipfile.ZipInfo], source: str) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, after every check that needs no decompression."""
    for info in infos:
        # orig_filename: the names as they stand in the file, before Python makes them harmless.
        if _OUTSIDE.search(info.orig_filename) or "\\" in info.orig_filename or "\0" in info.orig_filename:
            raise invalid(source, f"the archive's entry {info.orig_filename[:80]!r} would leave the model's folder")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise invalid(source, f"the archive's entry '{info.filename}' is a link to another place")
    files = [info for info in infos if not info.is_dir() and not _is_dropping(info.filename)]
    tops = {info.filename.partition("/")[0] for info in files}
    inside = f"{tops.pop()}/" if len(tops) == 1 and all("/" in info.filename for info in files) else ""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in files:
        name = info.filename.removeprefix(inside)
        _check_known(name, source)
        if name in entries:
            raise invalid(source, f"the archive holds '{name}' twice")
        _check_size(name, info.file_size, source)
        if info.file_size > _LARGEST_RATIO * max(info.compress_size, 1024):
            ratio = info.file_size // max(info.compress_size, 1)
            raise invalid(source, f"the archive's entry '{name}' would grow {ratio}-fold, as no model does")
        entries[name] = info
    return entries


def _is_dropping(name: str) -> bool:
    """Whether a file manager put an entry there by itself."""
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1] in _DROPPINGS


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: str) -> bytes:
    """Content of an entry; never more than it states, however much its data would decompress to."""
    with archive.open(info) as file:
        content = file.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise invalid(source, f"the archive's entry '{info.filename}' has another size than it states")
    return content


def _check_known(name: str, source: str) -> None:
    check_not_pickle(name, source)
    if name not in LARGEST:
        raise invalid(source, f"it holds a file that does not belong to a model, '{name}'")


def _check_size(name: str, size: int, source: str) -> None:
    if size > LARGEST[name]:
        reason = f"its {name} states {size:,} bytes, and at most {LARGEST[name]:,} are allowed"
        raise invalid(source, reason)


def discard(path: Path) -> None:
    """Delete a file or folder as far as possible; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
