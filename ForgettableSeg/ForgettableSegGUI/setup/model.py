"""What the Setup panel decides: what is installed, what is missing, what is said of the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..devices import deviceTitle
from ..i18n import tr as _
from ..model_cards import sizeText
from ..packages import PackageStatus

TORCHVISION_REQUIREMENT = ">=0.16.2"
KEPT_PACKAGES = ("numpy", "SimpleITK", "scipy", "requests", "torch", "torchvision")
"""Packages that an installation of ours never replaces: Slicer's own, and PyTorch, which has its own extension."""

LAST_LINES = 30


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
