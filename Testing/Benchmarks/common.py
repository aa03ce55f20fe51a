"""What the benchmarks share: made-up cases, medians with their spread, and Markdown tables."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from ForgettableSegLib.cases.task import SegmentClass, Task

TASK = Task(
    name="two balls",
    modality="MR",
    channels=("T1",),
    classes=(SegmentClass(name="bright ball", value=1), SegmentClass(name="dark ball", value=2)),
)


def write_ball_case(folder: Path, name: str, *, size: tuple[int, int, int], seed: int) -> tuple[Path, Path]:
    """Write a noisy volume with a bright and a dark ball, and its label map.

    Args:
        folder: receives both files.
        name: of the case.
        size: voxels (x, y, z) of 1 mm.
        seed: decides noise and positions.
    """
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(extent) for extent in size[::-1]), indexing="ij"))
    image = generator.normal(100, 10, size[::-1]).astype(np.float32)
    label = np.zeros(size[::-1], dtype=np.uint8)
    for value, offset in ((1, 40.0), (2, -40.0)):
        centre = np.array(size[::-1]) * generator.uniform(0.3, 0.7, 3)
        inside = ((grid - centre[:, None, None, None]) ** 2).sum(0) < (min(size) / 5) ** 2
        image[inside] += offset
        label[inside] = value
    paths = folder / f"{name}.nii.gz", folder / f"{name}_label.nii.gz"
    folder.mkdir(parents=True, exist_ok=True)
    for array, path in zip((image, label), paths, strict=True):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return paths


def ball_cases(folder: Path, number: int, *, size: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Write `number` cases; return them as entries of a request."""
    cases = []
    for index in range(number):
        image, label = write_ball_case(folder, f"case{index:03d}", size=size, seed=index)
        cases.append({"id": f"case{index:03d}", "images": [str(image)], "label": str(label)})
    return cases


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median and the range of some repetitions."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def markdown(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine(device: torch.device | None = None) -> str:
    """A line that says what was measured on."""
    where = f"{os.cpu_count()} CPU cores ({platform.machine()}), {torch.get_num_threads()} threads"
    if device is not None and device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    return f"Python {platform.python_version()}, torch {torch.__version__}, {where}, {platform.system()}."
