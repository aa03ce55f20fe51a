"""Small real volumes on disk, for the tests of cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.task import SegmentClass, Task

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
TASK = Task("knee", "MR", ("T1",), (SegmentClass("bone", 1), SegmentClass("cartilage", 4)))


def rotation(seed: int) -> tuple[float, ...]:
    """A random direction matrix: any rotation, every other one mirrored."""
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    matrix[:, 0] *= np.sign(np.linalg.det(matrix)) * (1 if seed % 2 else -1)
    return tuple(matrix.ravel().tolist())


def grid(shape: tuple[int, int, int], spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=AXIAL) -> Geometry:
    """Geometry of an array of this shape (z, y, x); spacing and origin are x, y, z."""
    return Geometry(tuple(shape[::-1]), tuple(spacing), tuple(origin), tuple(direction))


def save(path: Path, array: np.ndarray, geometry: Geometry | None = None, *, is_vector: bool = False) -> Path:
    """Write an array with SimpleITK itself, so that our reader is not tested against our writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=is_vector)
    if geometry is not None:
        geometry.apply_to(image)
    sitk.WriteImage(image, str(path))
    return path


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Float voxels without zeros or negative values."""
    return np.random.default_rng(seed).uniform(10, 100, size=shape).astype(np.float32)


def blocks(shape: tuple[int, int, int]) -> np.ndarray:
    """Label map of `TASK` with both classes."""
    label = np.zeros(shape, np.uint8)
    label[:, : shape[1] // 2, : shape[2] // 2] = 1
    label[:, shape[1] // 2 :, shape[2] // 2 :] = 4
    return label


def save_case(
    folder: Path, case_id: str = "a", *, shape=(6, 8, 10), geometry: Geometry | None = None, seed: int = 0
) -> Case:
    """A case of `TASK` on disk."""
    geometry = geometry or grid(shape)
    image = save(folder / "images" / f"{case_id}.nii.gz", noise(geometry.shape, seed), geometry)
    label = save(folder / "labels" / f"{case_id}.nii.gz", blocks(geometry.shape), geometry)
    return Case(case_id, case_id, (image,), label)
