"""The files of a package, out of a folder or a zip archive that nobody has reason to trust."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from pathlib import Path

from ForgettableSegLib.models.card import invalid

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


def read_files(path: Path, source: str) -> dict[str, bytes]:
    """Content of each file of the package.

    Args:
        path: a folder, or a ``.zip`` file with the same files at its top or in one folder.
        source: how a sentence names the package.

    Raises:
        ForgettableSegError: MODEL_INVALID, one sentence for each thing that can be wrong.
    """
    check_not_pickle(path.name, source)
    if path.is_dir():
        files = _read_folder(path, source)
    elif path.is_file() and zipfile.is_zipfile(path):
        files = _read_zip(path, source)
    else:
        raise invalid(source, "it is neither a folder nor a zip archive")
    for name in (CARD, WEIGHTS):
        if name not in files:
            raise invalid(source, f"it holds no {name}")
    return files


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


def _read_folder(folder: Path, source: str) -> dict[str, bytes]:
    files = {}
    try:
        for entry in sorted(folder.iterdir()):
            if entry.name in _DROPPINGS:
                continue
            if entry.is_symlink():
                raise invalid(source, f"'{entry.name}' is a link to another place")
            _check_known(entry.name, source)
            if not entry.is_file():  # reading a pipe would wait for ever
                raise invalid(source, f"'{entry.name}' is not a file")
            _check_size(entry.name, entry.stat().st_size, source)
            files[entry.name] = entry.read_bytes()
    except OSError as error:
        raise invalid(source, f"it cannot be read ({error.strerror})") from error
    return files


def _read_zip(path: Path, source: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _check_entries(archive.infolist(), source)
            return {name: _read_entry(archive, entry, source) for name, entry in entries.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise invalid(source, f"the archive is damaged ({error})", "Get it again.") from error


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
