"""Installing what the library needs into Slicer's Python: asked first, never in the place of Slicer's own packages."""

from __future__ import annotations

import importlib
import inspect
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import slicer

from ..i18n import tr as _
from ..packages import TORCH_REQUIREMENT, PackageStatus, installedPackages
from .model import (
    KEPT_PACKAGES,
    TORCHVISION_REQUIREMENT,
    constraintLines,
    failureSentence,
    pipArguments,
)

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
    """

    def __init__(self, wheels: str, onLine: Callable[[str], None], onFinished: Callable[[InstallResult], None]) -> None:
        self.wheels = wheels
        self.command = ""
        self._onLine, self._onFinished = onLine, onFinished
        self._before: dict[str, str] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="forgettableseg-")

    def start(self, missing: Sequence[PackageStatus]) -> None:
        """Install packages that are missing; the user has agreed already."""
        self._before = _keptVersions()
        others = [str(status.requirement) for status in missing if status.requirement.name != TORCH]
        needsTorch = any(status.requirement.name == TORCH for status in missing)
        try:
            if needsTorch and self.wheels:
                others.insert(0, TORCH + TORCH_REQUIREMENT)
            elif needsTorch and not self._installTorch():
                text = _("The PyTorch extension has been installed. Restart Slicer, then press Install again.")
                self._finish(InstallResult(False, text, restart=True))
                return
            if others:
                self._installWithPip(others)
            else:
                self._check()
        except Exception as error:  # pip, the extension manager and PyTorch's installer each raise their own kinds
            logging.exception("ForgettableSeg: the installation failed")
            self._onLine(str(error))
            self._finish(InstallResult(False, failureSentence(None, self.command)))

    def _installTorch(self) -> bool:
        """Install PyTorch by its extension; False where the extension itself had to be installed."""
        try:
            import PyTorchUtils  # a module of the PyTorch extension
        except ModuleNotFoundError:
            self._installExtension("PyTorch")
            return False
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
        return True

    def _installExtension(self, name: str) -> None:
        self.command = f"slicer.app.extensionsManagerModel().installExtensionFromServer({name!r})"
        model = getattr(slicer.app, "extensionsManagerModel", lambda: None)()
        if model is None:
            msg = "This build of Slicer has no extension manager; install the PyTorch extension by hand."
            raise RuntimeError(msg)
        if not model.installExtensionFromServer(name):
            msg = f"The extension {name} could not be installed; is there a network?"
            raise RuntimeError(msg)

    def _installWithPip(self, requirements: Sequence[str]) -> None:
        constraints = self._constraints()
        arguments = pipArguments(requirements, wheels=self.wheels, constraints=constraints)
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
            logCallback=self._onLine,
            completedCallback=self._completed,
        )

    def _completed(self, code: int) -> None:
        if code:
            self._finish(InstallResult(False, failureSentence(code, self.command)))
        else:
            self._check()

    def _check(self) -> None:
        """Look whether all is there, and whether Slicer's own packages are as they were."""
        now = _keptVersions()
        changed = [name for name, version in self._before.items() if name != TORCH and now.get(name) != version]
        still = [status.requirement.name for status in installedPackages() if not status.fits]
        if changed:
            text = _("Warning: the installation has changed {names}.").format(names=", ".join(changed))
            self._finish(InstallResult(False, text, restart=True))
        elif still:
            self._finish(InstallResult(False, _("Still missing: {names}.").format(names=", ".join(still))))
        else:
            self._finish(InstallResult(True, _("Everything is installed.")))

    def _constraints(self) -> str:
        """A file that holds Slicer's own packages at the versions that are there, so that pip replaces none."""
        path = Path(self._folder.name) / "constraints.txt"
        path.write_text("\n".join(constraintLines(_keptVersions())) + "\n", encoding="utf-8")
        return str(path)

    def _finish(self, result: InstallResult) -> None:
        self._folder.cleanup()
        self._onFinished(result)


def _keptVersions() -> dict[str, str]:
    """Versions of the packages that must stay as they are."""
    importlib.invalidate_caches()
    versions = {}
    for name in KEPT_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
