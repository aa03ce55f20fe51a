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
