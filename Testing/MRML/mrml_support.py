"""What the tests on slicer-core share: awkward geometries, and whether two images lie on one grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer_names

slicer = pytest.importorskip("slicer", reason="needs the slicer-core wheel")
sitk = pytest.importorskip("SimpleITK")
slicer_names.look_like_the_application()

# A rotation by 20 degrees about z, then 10 about x, with the first axis turned round: oblique and left-handed.
OBLIQUE = (-0.93969262, -0.33682409, 0.05939117, -0.34202014, 0.92541658, -0.16317591, 0.0, -0.17364818, -0.98480775)
GEOMETRIES = {
    "plain": ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)),
    "RAS": ((1.0, 1.0, 1.0), (5.0, -3.0, 7.5), (-1, 0, 0, 0, -1, 0, 0, 0, 1)),
    "anisotropic": ((0.7, 0.9, 5.0), (-120.5, 30.25, -400.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)),
    "coronal": ((1.2, 3.0, 0.8), (10.0, 20.0, 30.0), (1, 0, 0, 0, 0, 1, 0, -1, 0)),
    "oblique": ((0.8, 1.1, 2.5), (-31.7, 44.1, 12.9), OBLIQUE),
}


def same_geometry(first: sitk.Image, second: sitk.Image, tolerance: float = 1e-5) -> bool:
    """Whether two images lie on one grid."""
    parts = ("GetSpacing", "GetOrigin", "GetDirection")
    near = [np.allclose(getattr(first, part)(), getattr(second, part)(), atol=tolerance) for part in parts]
    return first.GetSize() == second.GetSize() and all(near)


def read_segmentation(scene: slicer.vtkMRMLScene, path: Path) -> slicer.vtkMRMLSegmentationNode:
    """Read a `.seg.nrrd` file as Slicer does; its reader ends the process on one that is cut off."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", path.name)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node), path
    node.CreateDefaultDisplayNodes()
    return node
