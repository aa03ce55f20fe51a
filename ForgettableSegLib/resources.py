"""Where shipped resources and the user's own files lie."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resources_dir() -> Path:
    """Folder of the shipped resources.

    It stands beside the package in a source checkout and in an installed Slicer extension, and inside the package
    when the library was installed with pip.

    Raises:
        FileNotFoundError: if the installation is incomplete.
    """
    for candidate in (_PACKAGE / "Resources", _PACKAGE.parent / "Resources"):
        if candidate.is_dir():
            return candidate
    msg = f"ForgettableSeg's Resources folder is missing beside {_PACKAGE}; install the extension or package again."
    raise FileNotFoundError(msg)


def user_dir() -> Path:
    """Folder in the user's home that holds installed models and caches (it need not exist yet)."""
    return Path.home() / ".forgettableseg"


def user_models_dir() -> Path:
    """Folder of the models that the user installed or trained."""
    return user_dir() / "models"


def user_cache_dir() -> Path:
    """Folder of what can be computed again (preprocessed cases, text embeddings)."""
    return user_dir() / "cache"
