"""How a training step grows with cases, classes, the bank and the patch, and segmentation with the volume.

    python Testing/Benchmarks/growth.py [--windows 3] [--device cpu]

Each axis is varied alone, the values of an axis take turns, and the first value of an axis is the unit of its ratios.
Prints Markdown tables: seconds a step, share of a step in which mining ran, share that reading patches would take if
nothing hid it (it runs in a thread beside the computation), and peak memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from common import machine, markdown, spread
from segmentation_speed import make_package
from training_window import TimedTraining

from ForgettableSegLib.cases.cache import CaseCache, PreparedCase
from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.preprocessing import plan_preprocessing
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.inference.device import resolve_device
from ForgettableSegLib.inference.predictor import Predictor
from ForgettableSegLib.memory import peak_memory

SIZE = (64, 64, 24)
AXES: dict[str, Sequence[int]] = {"cases": (4, 40, 160), "classes": (2, 8, 32), "bank batches (P)": (2, 10, 50)}
DEFAULTS = {"cases": 4, "classes": 2, "bank batches (P)": 2}
DEPTHS = (25, 50, 100, 200)


def noise_cases(folder: Path, number: int, classes: int) -> tuple[list[PreparedCase], Task]:
    """Prepared cases of noise with a stripe for each class: what they show does not matter here, their size does."""
    task = Task("growth", "MR", ("T1",), tuple(SegmentClass(f"class {n}", n) for n in range(1, classes + 1)))
    cases = []
    folder.mkdir(parents=True)
    stripes = np.arange(SIZE[0]) * (classes + 1) // SIZE[0]
    label = np.broadcast_to(stripes.astype(np.uint8), SIZE[::-1])
    for index in range(number):
        image = np.random.default_rng(index).normal(100, 10, SIZE[::-1]).astype(np.float32)
        paths = folder / f"{index:03d}.nrrd", folder / f"{index:03d}_label.nrrd"
        for array, path in zip((image, label), paths, strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
        cases.append(Case(f"{index:03d}", f"{index:03d}", paths[:1], paths[1]))
    preprocessing = plan_preprocessing(cases, task, spatial_dims=2)
    return CaseCache(folder / "cache").prepare(cases, task, preprocessing), task


def measure_axis(name: str, options: argparse.Namespace, folder: Path) -> list[list[Any]]:
    """A row for each value of one axis."""
    trainings = []
    for value in AXES[name]:
        place = {**DEFAULTS, name: value}
        cases, task = noise_cases(folder / f"{name} {value}", place["cases"], place["classes"])
        settings = {"batch_size": 16, "patch_size": [64, 64], "features": [16, 32, 64, 128], "admission": "topk"}
        settings["bank_batches"] = place["bank batches (P)"]
        names = [each.name for each in task.classes]
        device = resolve_device(options.device)
        run = folder / f"{name} {value} run"
        trainings.append(TimedTraining(settings, cases, class_names=names, folder=run, device=device))
    for training in trainings:
        training.run_window()
    steps: list[list[float]] = [[] for _ in trainings]
    shares: list[list[float]] = [[] for _ in trainings]
    reading: list[list[float]] = [[] for _ in trainings]
    for _ in range(options.windows):
        for number, training in enumerate(trainings):
            step, scoring = training.run_window()
            steps[number].append(step)
            shares[number].append(100 * scoring / step)
            reading[number].append(100 * training.reading_seconds / step)
    rows = []
    for value, own, share, read in zip(AXES[name], steps, shares, reading, strict=True):
        ratios = [one / unit for one, unit in zip(own, steps[0], strict=True)]
        rows.append(
            [value, spread([1000 * one for one in own], 0), spread(ratios, 2), spread(share, 1), spread(read, 1)]
        )
    return rows


def measure_volumes(options: argparse.Namespace) -> list[list[Any]]:
    """Seconds and peak memory of segmenting deeper and deeper volumes of 128 x 128 a slice."""
    predictor = Predictor(make_package(1.0, (128, 128)), resolve_device(options.device))
    rows = []
    for depth in DEPTHS:
        geometry = Geometry((128, 128, depth), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
        image = np.random.default_rng(0).gamma(2, 50, (1, *geometry.shape)).astype(np.float32)
        seconds = []
        for _ in range(options.windows):
            started = time.perf_counter()
            predictor.segment_array(image, geometry)
            seconds.append((time.perf_counter() - started) / depth)
        rows.append([depth, spread([1000 * one for one in seconds], 1), f"{peak_memory() / 2**20:.0f}"])
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--windows", type=int, default=3, help="measured windows of a replay cycle each")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(machine(resolve_device(options.device)))
    print(f"\nSegmentation of 128 x 128 slices, {torch.get_num_threads()} threads\n")
    print(markdown(["slices", "ms a slice", "peak MiB so far"], measure_volumes(options)))
    for name in AXES:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure_axis(name, options, Path(folder))
        print(f"\nTraining step (batch 16, 64 x 64) by number of {name}\n")
        print(markdown([name, "ms a step", "over the first", "mining, %", "reading, %"], rows))


if __name__ == "__main__":
    main()
