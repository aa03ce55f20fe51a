"""Whether memory grows with the number of cases, and how fast cases are prepared.

    python Testing/Benchmarks/preprocessing_memory.py [--data FOLDER] [--cases 14] [--times 10] [--iterations 20]

Prepares and trains on N cases, on the same cases linked `times` over, and on `times` as many of which each has other
content (a tiny offset of the intensities), so that a cache keyed by content cannot hide growth. Every measurement runs
in a process of its own, pinned to one or two cores. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import SimpleITK as sitk
import torch
from common import TASK, ball_cases, machine, markdown

from ForgettableSegLib.cases.cache import CaseCache
from ForgettableSegLib.cases.case_list import cases_from_dicts, read_case_list
from ForgettableSegLib.cases.preprocessing import plan_preprocessing
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.jobs.job import JobContext
from ForgettableSegLib.memory import peak_memory
from ForgettableSegLib.training.run import run_training
from ForgettableSegLib.training.settings import TrainingSettings

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "AbdomenMR"
SYNTHETIC_SIZE = (256, 256, 36)


def base_cases(data: Path, number: int, folder: Path) -> tuple[list[dict[str, Any]], Task]:
    """The first cases of a data set, or made-up ones of about its size where it is absent."""
    if not data.is_dir():
        print(f"{data} is not there; measuring on made-up cases of {SYNTHETIC_SIZE} voxels.")
        return ball_cases(folder, number, size=SYNTHETIC_SIZE), TASK
    listed = read_case_list(data)
    cases = [case for case in listed if case.label is not None][:number]
    return [
        {"id": case.case_id, "images": [str(path) for path in case.images], "label": str(case.label)} for case in cases
    ], listed.task


def linked(cases: list[dict[str, Any]], times: int, folder: Path) -> list[dict[str, Any]]:
    """Every case `times` over, under other names for the same files."""
    result = []
    for number in range(times):
        for case in cases:
            images = [_link(Path(path), folder / f"copy{number}") for path in case["images"]]
            result.append({**case, "id": f"{case['id']}_{number}", "images": images})
    return result


def _link(path: Path, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / path.name
    link.symlink_to(path)
    return str(link)


def distinct(cases: list[dict[str, Any]], times: int, folder: Path) -> list[dict[str, Any]]:
    """Every case `times` over, each with intensities shifted by its own tiny offset."""
    folder.mkdir(parents=True, exist_ok=True)
    result = []
    for case in cases:
        image = sitk.Cast(sitk.ReadImage(case["images"][0]), sitk.sitkFloat32)
        for number in range(times):
            path = folder / f"{case['id']}_{number}.nrrd"
            sitk.WriteImage(image + 0.01 * number, str(path))
            result.append({**case, "id": f"{case['id']}_{number}", "images": [str(path)]})
    return result


def measure(plan: dict[str, Any]) -> dict[str, float]:
    """Prepare and train as `plan` says, in this process; return seconds and peak memory."""
    torch.set_num_threads(plan["cores"])
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(plan["cores"])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: plan["cores"]]))
    cases, task = cases_from_dicts(plan["cases"]), Task.from_dict(plan["task"])
    folder = Path(plan["folder"])
    resident = psutil.Process().memory_info().rss / 2**20
    started = time.perf_counter()
    CaseCache(folder / "cache").prepare(list(cases), task, plan_preprocessing(list(cases), task, spatial_dims=2))
    seconds = time.perf_counter() - started
    prepared = peak_memory() / 2**20
    if plan["iterations"]:
        settings = TrainingSettings.from_dict(
            {"iterations": plan["iterations"], "batch_size": 4, "patch_size": [128, 128], "text": "random"}
            # All cases train: validating would take minutes and reads them one by one in the same way.
            | {"device": "cpu", "split_ratios": [1, 0, 0]}
        )
        run_training(
            cases=cases,
            task=task,
            folder=folder / "run",
            name="memory",
            settings=settings,
            device=torch.device("cpu"),
            listener=JobContext(),
            cache=folder / "cache",
        )
    return {"start": resident, "prepared": prepared, "trained": peak_memory() / 2**20, "seconds": seconds}


def in_child(plan: dict[str, Any]) -> dict[str, float]:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child"]
        text = json.dumps({**plan, "folder": folder})
        result = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=SHARED, help="a case list")
    parser.add_argument("--cases", type=int, default=14)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=20, help="of the training; 0 only prepares")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(json.load(sys.stdin))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base, task = base_cases(options.data, options.cases, folder / "made up")
        many = f"{len(base)} x {options.times}"
        variants = [
            (f"{len(base)} cases", base, 1, 0),
            (f"{len(base)} cases", base, 2, options.iterations),
            (f"{many}, linked", linked(base, options.times, folder / "linked"), 2, options.iterations),
            (f"{many}, other content each", distinct(base, options.times, folder / "distinct"), 2, options.iterations),
        ]
        rows, reference = [], 0.0
        for name, cases, cores, iterations in variants:
            plan = {"cases": cases, "task": task.to_dict(), "cores": cores, "iterations": iterations}
            found = in_child(plan)
            trained = found["trained"] if iterations else float("nan")
            reference = reference or (trained if iterations else 0.0)
            rows.append(
                [name, cores, f"{len(cases) / found['seconds']:.2f}", f"{found['start']:.0f}"]
                + [f"{found['prepared']:.0f}"]
                + ([f"{trained:.0f}", f"{trained / reference:.3f}"] if iterations else ["", ""])
            )
    print(machine())
    print()
    headers = ["cases", "cores", "prepared a second", "MiB before", "peak MiB, prepared", "peak MiB, trained"]
    print(markdown([*headers, "over the first"], rows))


if __name__ == "__main__":
    main()
