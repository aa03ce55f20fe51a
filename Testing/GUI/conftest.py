"""The panels in a stand-in for the application; needs the extras `dev` (PySide6) and `slicer` (slicer-core)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def application() -> Any:
    """The stand-in for the application, made once, for Qt cannot be made twice."""
    pytest.importorskip("PySide6", reason="needs PySide6 (extra `dev`)")
    pytest.importorskip("slicer", reason="needs the slicer-core wheel (extra `slicer`)")
    import stand_in

    return stand_in.install()


@pytest.fixture
def scene(application: Any) -> Iterator[Any]:
    """An empty scene."""
    application.asked.clear()
    application.jumps.clear()
    application.opened.clear()
    application.answer = True
    yield application.session.scene
    application.session.scene.Clear(False)


@pytest.fixture
def module(application: Any, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module with one installed model and a worker that a test answers for."""
    from module_view import ModuleWindow
    from worker_answers import MODEL

    monkeypatch.setenv("HOME", str(tmp_path))
    window = ModuleWindow()
    window.worker.answer("models", event="done", exit_code=0, result={"models": [MODEL]})
    yield window
    window.close()


@pytest.fixture
def case(module: Any, scene: Any) -> tuple[Any, Any]:
    """A volume and its segmentation in the scene."""
    from ForgettableSegGUI.samples import syntheticCase

    return syntheticCase(scene, 0)
