"""Fixtures of the tests on slicer-core: a scene with its logics, and volumes with awkward geometries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ForgettableSegMRML.headless import HeadlessSession
from mrml_support import GEOMETRIES, sitk, slicer


@pytest.fixture
def session() -> HeadlessSession:
    """A scene with the logics that nodes need."""
    return HeadlessSession()


@pytest.fixture
def scene(session: HeadlessSession) -> Iterator[slicer.vtkMRMLScene]:
    """The scene of the session."""
    yield session.scene
    session.scene.Clear(True)


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes an array (z, y, x) as a volume file with one of `GEOMETRIES`."""

    def make(array: np.ndarray, geometry: str = "plain", name: str = "volume.nrrd") -> Path:
        spacing, origin, direction = GEOMETRIES[geometry]
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction)
        path = tmp_path / name
        sitk.WriteImage(image, str(path))
        return path

    return make


@pytest.fixture
def boxes() -> np.ndarray:
    """A label map (z, y, x) with two boxes, 1 at low x and 2 at high x, on a grid with three different sides."""
    labels = np.zeros((9, 12, 15), np.uint8)
    labels[2:6, 3:8, 1:5] = 1
    labels[3:8, 2:9, 8:13] = 2
    return labels
