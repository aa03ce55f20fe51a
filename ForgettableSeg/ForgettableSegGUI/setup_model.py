"""What the Setup panel decides: what is installed, what is missing, what is said of the device."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .i18n import tr as _
from .model_cards import deviceTitle, sizeText

TORCH_REQUIREMENT = ">=2.1.2,!=2.9.*"
TORCHVISION_REQUIREMENT = ">=0.16.2"
KEPT_PACKAGES = ("numpy", "SimpleITK", "scipy", "requests", "torch", "torchvision")
"""Packages that an installation of ours never replaces: Slicer's own, and PyTorch, which has its own extension."""

LAST_LINES = 30


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


def packageRows(statuses: Sequence[PackageStatus]) -> list[list[str]]:
    """Return the rows of the table of packages."""
    return [
        [
            status.requirement.name,
            (status.installed or _("missing")) if status.fits or not status.installed else f"{status.installed} ✗",
            status.requirement.specifier or _("any"),
        ]
        for status in statuses
    ]


def summarySentence(missing: Sequence[str]) -> str:
    """Return what stands at the top of the panel."""
    if not missing:
        return _("All packages are installed.")
    return _("Missing: {names}.").format(names=", ".join(missing))


def missingSentence(missing: Sequence[str]) -> str:
    """Return why nothing can be started while packages are missing."""
    return _("Python packages are missing: {names}. Install them in Setup.").format(names=", ".join(missing))


def installQuestion(missing: Sequence[str], wheels: str) -> str:
    """Return the question that is asked before anything is installed."""
    names = ", ".join(missing)
    if wheels:
        return _("Install {names} from the folder {folder} into Slicer's Python?").format(names=names, folder=wheels)
    return _(
        "Install {names} into Slicer's Python? This downloads packages from the internet, PyTorch alone can take "
        "several gigabytes and some minutes. Slicer's own packages are not replaced."
    ).format(names=names)


def constraintLines(versions: Mapping[str, str]) -> list[str]:
    """Return the lines of a constraints file that keep Slicer's own packages at the versions that are there."""
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def pipArguments(requirements: Sequence[str], *, wheels: str = "", constraints: str = "") -> list[str]:
    """Return the arguments of `pip install` that our installation amounts to."""
    arguments = ["install"]
    if wheels:
        arguments += ["--no-index", "--find-links", wheels]
    if constraints:
        arguments += ["--constraint", constraints]
    return [*arguments, *requirements]


def lastLines(text: str, count: int = LAST_LINES) -> str:
    """Return the end of a log."""
    return "\n".join(text.splitlines()[-count:])


def deviceChoices(report: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return (device, title) of what can be chosen; Automatic and CPU before a check has told more."""
    choices = [("auto", deviceTitle("auto"))]
    for device in (report or {}).get("devices") or ():
        name, description = str(device.get("name")), str(device.get("description") or "")
        choices.append(
            (name, f"{deviceTitle(name)} · {description}" if description and name != "cpu" else deviceTitle(name))
        )
    if all(name != "cpu" for name, _title in choices):
        choices.append(("cpu", deviceTitle("cpu")))
    return choices


def deviceSentence(report: Mapping[str, Any]) -> str:
    """Return what a check of the device found, a warning included where a GPU stays unused."""
    name = str(report.get("device") or "")
    lines = [
        _("{device} works ({seconds:.1f} s).").format(
            device=deviceTitle(name), seconds=float(report.get("seconds") or 0)
        )
    ]
    for device in report.get("devices") or ():
        free = device.get("memory_free")
        if device.get("name") == name and free and name != "cpu":
            lines.append(_("{size} of its memory are free.").format(size=sizeText(int(free))))
    versions = report.get("versions") or {}
    if versions.get("torch"):
        lines.append(_("PyTorch {version}.").format(version=versions["torch"]))
    if name == "cpu":
        lines.append(_("No GPU is used; large volumes and trainings take longer."))
    lines += [str(warning) for warning in report.get("warnings") or ()]
    return " ".join(lines)


def failureSentence(code: int | None, command: str) -> str:
    """Return what is said when an installation failed."""
    text = _("The installation failed")
    text += _(" (exit code {code}).").format(code=code) if code is not None else "."
    return f"{text} {_('The command and the last lines are in the installation log below.')}" if command else text
