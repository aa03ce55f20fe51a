"""`Testing/run.py` makes an environment once, mends a half-made one, and says plainly what failed.

The project that is installed here is a tiny one with a build backend of its own, so that no network is needed.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from house import ROOT

BACKEND = """
import zipfile

def get_requires_for_build_editable(config_settings=None):
    return []

def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "tiny-1.0-py3-none-any.whl"
    metadata = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\nProvides-Extra: demo\\nProvides-Extra: dev\\n"
    wheel = "Wheel-Version: 1.0\\nGenerator: tiny\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as file:
        file.writestr("tiny.py", "VALUE = 7\\n")
        file.writestr("tiny-1.0.dist-info/METADATA", metadata)
        file.writestr("tiny-1.0.dist-info/WHEEL", wheel)
        file.writestr("tiny-1.0.dist-info/RECORD", "")
    return name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, set on a tiny project in a folder of its own."""
    spec = importlib.util.spec_from_file_location("run_script", ROOT / "Testing" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "constraints.txt").write_text("# none\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "ENVIRONMENTS", tmp_path / ".venv")
    monkeypatch.setattr(module, "CONSTRAINTS", tmp_path / "constraints.txt")
    monkeypatch.setattr(module, "NEEDED_GIB", 0)
    return module


@pytest.fixture
def no_ensurepip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python as Debian ships it: pip, but no ensurepip. It also makes environments much faster."""
    pytest.importorskip("pip", reason="needs pip beside the tests")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else real(name))


def installed(python: Path) -> str:
    """What the tiny project says when the environment's Python imports it."""
    command = [python, "-c", "import tiny; print(tiny.VALUE)"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.mark.usefixtures("no_ensurepip")
def test_an_environment_is_made_once_and_completed_when_more_is_asked(run: ModuleType) -> None:
    python = run.prepare(("demo",))
    assert installed(python) == "7"
    log = (run.environment_folder() / "pip.log").read_text()
    assert run.prepare(("demo",)) == python
    assert (run.environment_folder() / "pip.log").read_text() == log, "the second run must not call pip"
    assert run.prepare(("demo", "dev")) == python
    assert run.installed_extras(run.environment_folder()) == {"demo", "dev"}


@pytest.mark.usefixtures("no_ensurepip")
def test_a_half_made_environment_is_made_again(run: ModuleType) -> None:
    folder = run.environment_folder()
    folder.mkdir(parents=True)
    (folder / "left over").write_text("from a run that was killed")
    assert installed(run.prepare(("demo",))) == "7"
    assert not (folder / "left over").exists()


@pytest.mark.usefixtures("no_ensurepip")
def test_a_failing_pip_is_shown_with_its_command(run: ModuleType) -> None:
    (run.ROOT / "backend.py").write_text("raise RuntimeError('the backend is broken')")
    with pytest.raises(run.SetupError) as caught:
        run.prepare(("demo",))
    assert "the backend is broken" in str(caught.value)
    assert "pip --python" in str(caught.value)
    assert run.installed_extras(run.environment_folder()) is None


def test_a_change_of_the_requirements_asks_for_another_environment(run: ModuleType) -> None:
    before = run.environment_folder()
    assert run.environment_folder() == before
    run.CONSTRAINTS.write_text("torch==2.13.0\n")
    assert run.environment_folder() != before


def test_an_unreadable_note_counts_as_half_made(run: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "installed.json").write_text("{")
    assert run.installed_extras(tmp_path) is None
    (tmp_path / "installed.json").write_text(json.dumps({"extras": ["demo"]}))
    assert run.installed_extras(tmp_path) == {"demo"}


def test_too_full_a_disk_is_said_before_anything_is_made(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "NEEDED_GIB", 10**9)
    with pytest.raises(run.SetupError, match="GiB free"):
        run.prepare(("demo",))
    assert not run.environment_folder().exists()


def test_an_old_python_can_read_the_script_and_is_told_what_to_do(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ast.parse((ROOT / "Testing" / "run.py").read_text(encoding="utf-8"), feature_version=(3, 8))
    monkeypatch.setattr(run, "OLDEST_PYTHON", (99, 0))
    assert run.main(["demo"]) == 2
    assert "needs Python 99.0 or later" in capsys.readouterr().out


def test_a_wrong_command_prints_the_usage() -> None:
    result = subprocess.run([sys.executable, ROOT / "Testing" / "run.py", "dmeo"], capture_output=True, text=True)
    assert result.returncode == 2
    assert "run.py demo" in result.stdout
