"""Small made-up cases on disk, easy enough for a network to learn in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ForgettableSegLib.cases.case import Case, CaseList
from ForgettableSegLib.cases.task import SegmentClass, Task

TASK = Task(
    name="balls",
    modality="MR",
    channels=("T1",),
    classes=(SegmentClass(name="bright ball", value=1), SegmentClass(name="dark ball", value=2)),
)


def make_arrays(seed: int, shape: tuple[int, int, int] = (10, 28, 24)) -> tuple[np.ndarray, np.ndarray]:
    """An image (z, y, x) of a bright and a dark ball in grey noise, and its label map."""
    generator = np.random.default_rng(seed)
    image = generator.normal(100, 8, shape).astype(np.float32)
    label = np.zeros(shape, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    for value, intensity, column in ((1, 180, shape[2] * 0.28), (2, 30, shape[2] * 0.72)):
        centre = np.array([shape[0] / 2, shape[1] / 2, column]) + generator.uniform(-1.5, 1.5, 3)
        inside = np.linalg.norm((grid - centre) / [1, 1.3, 1], axis=-1) < shape[2] / 5
        label[inside] = value
        image[inside] += intensity - 100
    return image, label


def write_cases(
    folder: Path, number: int, *, first_seed: int = 0, shape: tuple[int, int, int] = (10, 28, 24)
) -> CaseList:
    """Cases as pairs of NIfTI files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        image, label = make_arrays(first_seed + index, shape)
        for array, name in ((image, f"ball{index:02d}.nii.gz"), (label, f"ball{index:02d}_label.nii.gz")):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((1.0, 1.0, 2.0))
            sitk.WriteImage(volume, str(folder / name))
    return read_cases(folder)


def read_cases(folder: Path) -> CaseList:
    """The cases that `write_cases` wrote."""
    labels = sorted(folder.glob("ball??_label.nii.gz"))
    names = [label.name[: len("ball00")] for label in labels]
    cases = (Case(name, name, (folder / f"{name}.nii.gz",), label) for name, label in zip(names, labels, strict=True))
    return CaseList(tuple(cases), TASK, folder)
