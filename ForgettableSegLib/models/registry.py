"""The models on this machine: those that are shipped, and those that the user installed or trained."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.models.archive import discard, read_card
from ForgettableSegLib.resources import resources_dir, user_models_dir


@dataclass(frozen=True)
class InstalledModel:
    """A model in one of the two places.

    Args:
        name: of its folder, by which it is found.
        path: of its folder.
        shipped: it came with ForgettableSeg and cannot be removed.
        size_bytes: of its files.
        card: content of its ``model.json``; empty where it cannot be used.
        problem: why it cannot be used, in one sentence, else empty.
    """

    name: str
    path: Path
    shipped: bool
    size_bytes: int
    card: dict[str, Any]
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a list of models."""
        return {
            "name": self.name,
            "path": str(self.path),
            "shipped": self.shipped,
            "bytes": self.size_bytes,
            "card": self.card,
            "problem": self.problem,
        }


def list_models() -> list[InstalledModel]:
    """Every model, sorted by name; broken ones with the reason."""
    found = [_describe(path, shipped) for path, shipped in _folders()]
    return sorted(found, key=lambda model: model.name.casefold())


def find_model(name_or_path: str | Path) -> Path:
    """Where a model lies.

    Args:
        name_or_path: name of an installed model (letter case does not count), or path of a package.

    Raises:
        ForgettableSegError: MODEL_MISSING, naming those that exist.
    """
    wanted = str(name_or_path)
    folders = {path.name.casefold(): path for path, _ in reversed(list(_folders()))}
    if wanted.casefold() in folders:
        return folders[wanted.casefold()]
    path = Path(name_or_path)
    if path.exists():
        return path
    names = ", ".join(sorted(folder.name for folder in folders.values())) or "none"
    raise ForgettableSegError(ErrorCode.MODEL_MISSING, f"There is no model '{wanted}'; installed are: {names}.")


def install(path: str | Path, *, name: str | None = None, replace: bool = False) -> InstalledModel:
    """Check a package and copy it into the user's folder.

    Args:
        path: its folder or ``.zip`` file.
        name: to install it under, default: its own.
        replace: whether a model of the user's with that name is replaced. Otherwise the name is given a number
            ("liver-2"), unless the very same model is installed already.

    Raises:
        ForgettableSegError: MODEL_MISSING or MODEL_INVALID for the package; DISK_FULL or OUTPUT_UNWRITABLE for the
            folder.
    """
    from ForgettableSegLib.models.package import ModelPackage  # here, for it takes torch

    package = ModelPackage.read(path)
    wanted = package.name if name is None else name
    taken = {folder.name.casefold(): (folder, shipped) for folder, shipped in reversed(list(_folders()))}
    number, free = 1, wanted
    while free.casefold() in taken:
        folder, shipped = taken[free.casefold()]
        if not shipped and replace:
            break
        if package.renamed(folder.name).is_stored_in(folder):
            return _describe(folder, shipped)
        number += 1
        free = f"{wanted[:60].rstrip(' .')}-{number}"
    target = package.renamed(free).write(user_models_dir() / free, replace=replace)
    return _describe(target, shipped=False)


def remove(name: str) -> int:
    """Delete a model of the user's.

    Returns:
        Bytes that were freed.

    Raises:
        ForgettableSegError: MODEL_MISSING where there is none of that name; OUTPUT_UNWRITABLE where it is not the
            user's or cannot be deleted.
    """
    users = {path.name.casefold(): path for path, shipped in _folders() if not shipped}
    path = users.get(name.casefold())
    if path is None:
        find_model(name)  # says which models there are
        message = f"The model '{name}' is not in your folder of models and cannot be removed."
        raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, message, hint="Shipped models stay.")
    freed = _size(path)
    aside = path.with_name(f".{uuid.uuid4().hex}")
    try:
        os.replace(path, aside)  # at once out of the list, even where deleting takes a while
    except OSError as error:
        message = f"The model '{name}' cannot be removed ({error.strerror})."
        raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, message, hint="Close what uses it.") from error
    discard(aside)
    return freed


def _folders() -> Iterator[tuple[Path, bool]]:
    """Folder of each model and whether it is shipped, the user's first."""
    for parent, shipped in ((user_models_dir(), False), (resources_dir() / "Models", True)):
        if parent.is_dir():
            yield from ((path, shipped) for path in sorted(parent.iterdir()) if path.is_dir() and path.name[0] != ".")


def _describe(path: Path, shipped: bool) -> InstalledModel:
    try:
        card, problem = read_card(path, verify=False), ""
    except ForgettableSegError as error:
        card, problem = {}, error.message
    return InstalledModel(path.name, path, shipped, _size(path), card, problem)


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.lstat().st_size if not file.is_dir() else 0
    return total
