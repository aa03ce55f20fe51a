"""Installing what the library needs into Slicer's Python: asked first, never in the place of Slicer's own packages."""

from __future__ import annotations

import importlib
import inspect
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import slicer

from ..i18n import tr as _
from ..packages import TORCH_REQUIREMENT, PackageStatus, installedPackages
from .model import TORCHVISION_REQUIREMENT, failureSentence, heldBack, heldVersions, pipArguments

TORCH = "torch"


@dataclass(frozen=True)
class InstallResult:
    """How an installation went.

    Args:
        done: whether everything is there now.
        message: one sentence on it.
        restart: whether Slicer must be started again.
    """

    done: bool
    message: str
    restart: bool = False


class Installer:
    """Installs what is missing: PyTorch by its own extension, the rest by pip in the background.

    Slicer's `pip_ensure` asks and installs in one go but gives no log back, so its parts are used: the question is
    asked by the panel, and `slicer.packaging.pip_install` runs in the background and tells every line.

    Args:
        wheels: folder of wheels to install from; empty to use the network.
        onLine: hears every line of the log.
        onFinished: hears the result.
        mayReplace: asks whether packages that are installed, by name their version, may be replaced.
    """

    def __init__(
        self,
        wheels: str,
        *,
        onLine: Callable[[str], None],
        onFinished: Callable[[InstallResult], None],
        mayReplace: Callable[[Mapping[str, str]], bool],
    ) -> None:
        self.wheels = wheels
        self.command = ""
        self._onLine, self._onFinished, self._mayReplace = onLine, onFinished, mayReplace
        self._before: dict[str, str] = {}
        self._asked: list[str] = []
        self._released: set[str] = set()
        self._lines: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="forgettableseg-")

    def start(self, missing: Sequence[PackageStatus]) -> None:
        """Install packages that are missing; the user has agreed already."""
        self._before = _installedVersions()
        self._asked = [status.requirement.name for status in missing]
        others = [str(status.requirement) for status in missing if status.requirement.name != TORCH]
        needsTorch = any(status.requirement.name == TORCH for status in missing)
        try:
            if needsTorch and self.wheels:
                others.insert(0, TORCH + TORCH_REQUIREMENT)
            elif needsTorch and (waiting := self._installTorch()) is not None:
                self._finish(waiting)
                return
            if others:
                self._installWithPip(others)
            else:
                self._check()
        except Exception as error:  # pip, the extension manager and PyTorch's installer each raise their own kinds
            logging.exception("ForgettableSeg: the installation failed")
            self._onLine(str(error))
            self._finish(InstallResult(False, failureSentence(None, self.command)))

    def _installTorch(self) -> InstallResult | None:
        """Install PyTorch by its extension; returns how it ended where the extension itself is still missing."""
        try:
            import PyTorchUtils  # a module of the PyTorch extension
        except ModuleNotFoundError:
            return self._installExtension("PyTorch")
        install = PyTorchUtils.PyTorchUtilsLogic().installTorch
        wanted: dict[str, Any] = {
            "askConfirmation": False,
            "torchVersionRequirement": TORCH_REQUIREMENT,
            "torchvisionVersionRequirement": TORCHVISION_REQUIREMENT,
        }
        accepted = inspect.signature(install).parameters  # it has changed between versions of the extension
        arguments = {name: value for name, value in wanted.items() if name in accepted}
        self.command = f"PyTorchUtils.PyTorchUtilsLogic().installTorch(**{arguments})"
        if install(**arguments) is None:
            msg = "PyTorch was not installed."
            raise RuntimeError(msg)
        return None

    def _installExtension(self, name: str) -> InstallResult:
        """Install an extension of Slicer, which asks about it in its own words."""
        self.command = f"slicer.app.extensionsManagerModel().installExtensionFromServer({name!r})"
        model = getattr(slicer.app, "extensionsManagerModel", lambda: None)()
        if model is None:
            msg = f"This build of Slicer has no extension manager; install the {name} extension by hand."
            raise RuntimeError(msg)
        if not model.isExtensionInstalled(name):
            if model.updateExtensionsMetadataFromServer(True, True) is False:
                text = _("The server of Slicer's extensions could not be reached. Is there a network?")
                return InstallResult(False, f"{text} {_('Without one, see No network.')}")
            if not model.installExtensionFromServer(name):
                text = _("The extension {name} was not installed, and nothing was changed.").format(name=name)
                return InstallResult(False, text)
        text = _("The {name} extension has been installed. Restart Slicer, then press Install again.")
        return InstallResult(False, text.format(name=name), restart=True)

    def _installWithPip(self, requirements: Sequence[str]) -> None:
        arguments = pipArguments(requirements, wheels=self.wheels, constraints=self._constraints())
        self.command = " ".join(["PythonSlicer", "-m", "pip", *arguments])
        try:
            from slicer.packaging import pip_install
        except ImportError:  # Slicer 5.10 has only the one that waits
            slicer.util.pip_install(arguments[1:])
            self._check()
            return
        pip_install(
            arguments[1:],
            blocking=False,
            show_progress=False,
            logCallback=self._heard,
            completedCallback=lambda code: self._completed(code, requirements),
        )

    def _heard(self, line: str) -> None:
        self._lines.append(line)
        self._onLine(line)

    def _completed(self, code: int, requirements: Sequence[str]) -> None:
        conflicts = heldBack(self._lines) if code else {}
        self._lines = []
        if not code:
            self._check()
        elif conflicts and self._mayReplace(conflicts):
            self._released |= set(conflicts)
            self._installWithPip(requirements)
        else:
            self._finish(InstallResult(False, failureSentence(code, self.command)))

    def _check(self) -> None:
        """Look whether all is there, and whether what was there before is as it was."""
        now = _installedVersions()
        changed = [name for name, version in self._held().items() if now.get(name) != version]
        still = [status.requirement.name for status in installedPackages() if not status.fits]
        if changed:
            text = _("Warning: the installation has changed {names}.").format(names=", ".join(changed))
            self._finish(InstallResult(False, text, restart=True))
        elif still:
            self._finish(InstallResult(False, _("Still missing: {names}.").format(names=", ".join(still))))
        else:
            self._finish(InstallResult(True, _("Everything is installed.")))

    def _held(self) -> dict[str, str]:
        return heldVersions(self._before, self._asked, self._released)

    def _constraints(self) -> str:
        """A file that holds what is installed at the versions that are there, so that pip replaces none of it."""
        path = Path(self._folder.name) / "constraints.txt"
        lines = [f"{name}=={version}" for name, version in self._held().items()]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)

    def _finish(self, result: InstallResult) -> None:
        self._folder.cleanup()
        self._onFinished(result)


def _installedVersions() -> dict[str, str]:
    """Versions of all packages that are there."""
    importlib.invalidate_caches()
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        if distribution.metadata["Name"]:
            versions.setdefault(distribution.metadata["Name"], distribution.version)
    return versions
