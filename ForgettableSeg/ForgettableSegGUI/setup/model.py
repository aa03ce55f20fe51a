"""What the Setup panel decides: what is installed, what is missing, what is said of the device."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..devices import deviceTitle
from ..i18n import tr as _
from ..model_cards import sizeText
from ..packages import PackageStatus

TORCHVISION_REQUIREMENT = ">=0.16.2"
LAST_LINES = 30
_TORCH_FAMILY = re.compile(r"torch|torchvision|torchaudio|triton|nvidia[-_].*")
_PLAIN_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!_-]*")
_HELD_BACK = re.compile(r"The user requested \(constraint\) ([A-Za-z0-9._-]+)==(\S+)")


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
        text = _("Install {names} from the folder {folder} into Slicer's Python?").format(names=names, folder=wheels)
    else:
        text = _(
            "Install {names} into Slicer's Python? This downloads packages from the internet, PyTorch alone can take "
            "several gigabytes and some minutes."
        ).format(names=names)
    return f"{text} {_('What is installed already is not replaced without another question.')}"


def heldVersions(installed: Mapping[str, str], asked: Iterable[str], released: Collection[str] = ()) -> dict[str, str]:
    """Return the versions that an installation must leave as they are: all but those of what is to be installed.

    Args:
        installed: version by name of all packages that are there.
        asked: names of what is to be installed; where PyTorch is among them, what belongs to it comes with it.
        released: names that the user has allowed to be replaced.
    """
    free = {_canonical(name) for name in (*asked, *released)}
    return {
        name: version
        for name, version in sorted(installed.items())
        if _canonical(name) not in free
        and not ("torch" in free and _TORCH_FAMILY.fullmatch(_canonical(name)))
        and _PLAIN_VERSION.fullmatch(version)
    }


def heldBack(log: Iterable[str]) -> dict[str, str]:
    """Return the packages, by name their version, because of which pip found no way to install what was asked for."""
    return {match[1]: match[2] for line in log if (match := _HELD_BACK.search(line))}


def releaseQuestion(packages: Mapping[str, str]) -> str:
    """Return what is asked where something that is installed already would have to be replaced."""
    names = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
    return _(
        "What is to be installed does not go together with {names}, which Slicer has. Replace it by another version? "
        "Other parts of Slicer that use it may then behave differently."
    ).format(names=names)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


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
