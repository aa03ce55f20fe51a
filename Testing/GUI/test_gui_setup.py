"""Installing from the Setup panel: what is there is not replaced without a question, and a No is not a failure."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import slicer_api


def write_wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """Write a wheel with nothing in it."""
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    content = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*content, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**content, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


def pip_install_into(target: Path) -> Callable[..., None]:
    """Slicer's `pip_install` with the real pip, which installs into a folder and is waited for."""

    def pip_install(arguments: Sequence[str], *, logCallback: Any, completedCallback: Any, **_options: Any) -> None:
        command = [sys.executable, "-m", "pip", "install", "--target", str(target), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        for line in (done.stdout + done.stderr).splitlines():
            logCallback(line)
        completedCallback(done.returncode)

    return pip_install


@pytest.fixture
def install(
    application: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bool], tuple[Any, list[Any], Path]]:
    """Installs a package that needs a newer version of one that is there; the answer to the question is given."""
    from ForgettableSegGUI.packages import PackageStatus, Requirement
    from ForgettableSegGUI.setup import installing

    wheels, target = tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    write_wheel(wheels, "wanted", "1.0", "there (>=77)")
    write_wheel(wheels, "there", "84.2")
    module = ModuleType("slicer.packaging")
    module.pip_install = pip_install_into(target)
    monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    wanted = PackageStatus(Requirement("wanted"), None, False)

    def versions() -> dict[str, str]:
        return {"there": "84.2" if list(target.glob("there-84.2*")) else "65.5.0", "numpy": "2.0.2"}

    monkeypatch.setattr(installing, "_installedVersions", versions)
    monkeypatch.setattr(installing, "installedPackages", lambda: [PackageStatus(Requirement("wanted"), "1.0", True)])

    def run(answer: bool) -> tuple[Any, list[Any], Path]:
        results: list[Any] = []
        asked: list[Any] = []

        def may_replace(packages: dict[str, str]) -> bool:
            asked.append(dict(packages))
            return answer

        installer = installing.Installer(
            str(wheels), onLine=lambda line: None, onFinished=results.append, mayReplace=may_replace
        )
        installer.start([wanted])
        (result,) = results
        return result, asked, target

    return run


def test_what_is_installed_is_held_and_replaced_only_after_a_question(install: Any) -> None:
    result, asked, target = install(False)
    assert asked == [{"there": "65.5.0"}]
    assert not result.done
    assert "failed" in result.message
    assert list(target.glob("there-*")) == []
    result, asked, target = install(True)
    assert asked == [{"there": "65.5.0"}]
    assert (result.done, result.message) == (True, "Everything is installed.")
    assert len(list(target.glob("there-84.2*"))) == 1


class ExtensionsManager:
    """The extension manager, which has its own question; it has no name that Slicer's lacks."""

    def __init__(self, *, reachable: bool = True, answer: bool = False, installed: bool = False) -> None:
        self._answers = {
            "isExtensionInstalled": installed,
            "updateExtensionsMetadataFromServer": reachable,
            "installExtensionFromServer": answer,
        }

    def __getattr__(self, name: str) -> Callable[..., bool]:
        slicer_api.require("qSlicerExtensionsManagerModel", name)
        return lambda *arguments: self._answers[name]


@pytest.mark.parametrize(
    ("manager", "said", "restart"),
    [
        (ExtensionsManager(), "The extension PyTorch was not installed, and nothing was changed.", False),
        (ExtensionsManager(reachable=False), "Is there a network?", False),
        (ExtensionsManager(answer=True), "Restart Slicer, then press Install again.", True),
        (ExtensionsManager(installed=True), "Restart Slicer, then press Install again.", True),
    ],
)
def test_a_no_in_the_extension_manager_is_no_question_of_the_network(
    application: Any, monkeypatch: pytest.MonkeyPatch, manager: Any, said: str, restart: bool
) -> None:
    import slicer
    from ForgettableSegGUI.packages import PackageStatus, Requirement
    from ForgettableSegGUI.setup.installing import Installer

    monkeypatch.setattr(slicer, "app", SimpleNamespace(extensionsManagerModel=lambda: manager))
    results: list[Any] = []
    lines: list[str] = []
    installer = Installer("", onLine=lines.append, onFinished=results.append, mayReplace=lambda packages: False)
    installer.start([PackageStatus(Requirement("torch"), None, False)])
    (result,) = results
    assert said in result.message
    assert ("network" in " ".join([result.message, *lines])) == ("network" in said)
    assert (result.done, result.restart) == (False, restart)
