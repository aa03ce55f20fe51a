"""The Python packages that the library needs: which there are, which are missing, without importing any of them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ForgettableSegLib.resources import resources_dir

from .i18n import tr as _

TORCH_REQUIREMENT = ">=2.1.2,!=2.9.*"


@dataclass(frozen=True)
class Requirement:
    """A package that is needed, as in Resources/requirements.txt."""

    name: str
    specifier: str = ""

    def __str__(self) -> str:
        return self.name + self.specifier


@dataclass(frozen=True)
class PackageStatus:
    """A package that is needed, and the version that is there, None where there is none."""

    requirement: Requirement
    installed: str | None
    fits: bool


def readRequirements(path: Path) -> list[Requirement]:
    """Return the requirements of a file, a line each; comments and options are skipped."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"\s*([A-Za-z0-9_.\-]+)\s*([<>=!~][^#;]*)?", line)
        if match and not line.lstrip().startswith(("#", "-")):
            found.append(Requirement(match[1], (match[2] or "").strip()))
    return found


def installedPackages() -> list[PackageStatus]:
    """Return what is there of what is needed, without importing any of it."""
    importlib.invalidate_caches()
    return packageStatuses(readRequirements(resources_dir() / "requirements.txt"))


def packageStatuses(
    requirements: Sequence[Requirement], version: Callable[[str], str] = metadata.version
) -> list[PackageStatus]:
    """Return what is there of what is needed, without importing any of it."""
    statuses = []
    for requirement in (Requirement("torch", TORCH_REQUIREMENT), *requirements):
        try:
            installed = version(requirement.name)
        except metadata.PackageNotFoundError:
            installed = None
        fits = installed is not None and _fits(installed, requirement.specifier)
        statuses.append(PackageStatus(requirement, installed, fits))
    return statuses


def _fits(installed: str, specifier: str) -> bool:
    if not specifier:
        return True
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # without it the presence must do; the check of the device tells the rest
        return True
    return SpecifierSet(specifier).contains(installed, prereleases=True)


def missingNames(statuses: Sequence[PackageStatus]) -> tuple[str, ...]:
    """Return the names of the packages that are missing or too old."""
    return tuple(status.requirement.name for status in statuses if not status.fits)


def missingSentence(missing: Sequence[str]) -> str:
    """Return why nothing can be started while packages are missing."""
    return _("Python packages are missing: {names}. Install them in Setup.").format(names=", ".join(missing))
