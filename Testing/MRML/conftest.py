"""Fixtures of the tests on slicer-core: a scene with its logics, and volumes with awkward geometries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="needs the slicer-core wheel")
sitk = pytest.importorskip("SimpleITK")

from ForgettableSegMRML.headless import HeadlessSession  # noqa: E402

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

# A rotation by 20 degrees about z, then 10 about x, with the first axis turned round: oblique and left-handed.
OBLIQUE = (-0.93969262, -0.33682409, 0.05939117, -0.34202014, 0.92541658, -0.16317591, 0.0, -0.17364818, -0.98480775)
GEOMETRIES = {
    "plain": ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)),
    "RAS": ((1.0, 1.0, 1.0), (5.0, -3.0, 7.5), (-1, 0, 0, 0, -1, 0, 0, 0, 1)),
    "anisotropic": ((0.7, 0.9, 5.0), (-120.5, 30.25, -400.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)),
    "coronal": ((1.2, 3.0, 0.8), (10.0, 20.0, 30.0), (1, 0, 0, 0, 0, 1, 0, -1, 0)),
    "oblique": ((0.8, 1.1, 2.5), (-31.7, 44.1, 12.9), OBLIQUE),
}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real cases beside the project; a user's clone has none, then the test is skipped."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real cases of ../shared/data, which are not part of a clone")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, so that no test reads or writes the user's models."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


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


def same_geometry(first: sitk.Image, second: sitk.Image, tolerance: float = 1e-5) -> bool:
    """Whether two images lie on one grid."""
    parts = ("GetSpacing", "GetOrigin", "GetDirection")
    near = [np.allclose(getattr(first, part)(), getattr(second, part)(), atol=tolerance) for part in parts]
    return first.GetSize() == second.GetSize() and all(near)
