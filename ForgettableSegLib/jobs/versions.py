"""Which versions of what are installed, told without importing any of it. Standard library only."""

from __future__ import annotations

import platform
from importlib import metadata

from ForgettableSegLib import __version__

REQUIRED_PACKAGES = ("torch", "monai", "SimpleITK", "numpy", "scipy", "safetensors", "psutil", "tqdm")
OPTIONAL_PACKAGES = ("open_clip_torch", "matplotlib")


def package_versions() -> dict[str, str | None]:
    """Return the versions of this library, of Python and of every package it uses; None for one that is missing."""
    versions: dict[str, str | None] = {"ForgettableSeg": __version__, "python": platform.python_version()}
    for name in REQUIRED_PACKAGES + OPTIONAL_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions
