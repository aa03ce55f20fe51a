#!/usr/bin/env python3
"""nnU-Net v2 (2D) and this library on the same cases, the same split and the same time, on this machine.

    python Testing/Benchmarks/nnunet_side_by_side.py CASES --output DIR [--task TASK.json] [--epochs 50] [--device cpu]

1. The labelled cases are written once more in nnU-Net's layout, and split as the jobs `train` and `experiment` split
   them. Both sides read these files.
2. nnU-Net gets a Python environment of its own (DIR/environment, or --environment) and is run through its own commands:
   plan and preprocess, train fold 0 of the configuration 2d with its trainer of so many epochs, predict.
3. `forgettableseg train` gets the time that nnU-Net's training took, and its model segments the same held-out cases.
4. `forgettableseg evaluate` judges both, paired by case. DIR/side_by_side.md tells results, times and commands.

What is done already is not done again, so that a machine that was needed elsewhere can go on later; --convert-only ends
after the first step. An epoch of nnU-Net is 250 iterations, about 10 minutes on two CPU cores for small images.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import machine, markdown

from ForgettableSegLib.cases.case import Case, CaseList
from ForgettableSegLib.cases.case_list import read_case_list
from ForgettableSegLib.cases.files import read_image, write_volume
from ForgettableSegLib.cases.label_files import label_path, read_label_map
from ForgettableSegLib.cases.labels import to_class_indices
from ForgettableSegLib.cases.split import Split, split_cases
from ForgettableSegLib.cases.task import Task

NNUNET = "nnunetv2>=2.5,<3"
DATASET = "Dataset901_SideBySide"
# The lengths for which nnU-Net has a trainer.
EPOCHS = (1, 5, 10, 20, 50, 100, 250, 500, 750, 1000, 2000)


@dataclass(frozen=True)
class Layout:
    """Where everything lies below the output folder."""

    output: Path

    @property
    def raw(self) -> Path:
        """nnU-Net's folder of the converted cases."""
        return self.output / "nnUNet_raw" / DATASET

    @property
    def preprocessed(self) -> Path:
        """nnU-Net's folder of prepared cases, where it looks for the split."""
        return self.output / "nnUNet_preprocessed" / DATASET

    def predictions(self, side: str) -> Path:
        """Label maps of the held-out cases, of "nnunet" or "ours"."""
        return self.output / "predictions" / side


def convert(cases: CaseList, task: Task, layout: Layout, *, seed: int) -> Split:
    """Write the labelled cases in nnU-Net's layout, their split, and the same for the command line of this library.

    Args:
        cases: of which those with a label are taken.
        task: channels and classes; in the converted labels a class has its index as value.
        layout: where to write.
        seed: of the split.
    """
    labelled = [case for case in cases if case.label is not None]
    split = split_cases(labelled, seed=seed)
    for case in labelled:
        part = "Ts" if case.case_id in split.test else "Tr"
        if not (layout.raw / f"labels{part}" / f"{case.case_id}.nii.gz").is_file():
            _convert_case(case, task, layout.raw, part)
    names = {str(index): _channel_name(task, index) for index in range(len(task.channels))}
    labels = {"background": 0} | {each.name: index for index, each in enumerate(task.classes, start=1)}
    _write_json(
        layout.raw / "dataset.json",
        {
            "channel_names": names,
            "labels": labels,
            "numTraining": len(split.train) + len(split.validation),
            "file_ending": ".nii.gz",
        },
    )
    fold = {"train": list(split.train), "val": list(split.validation)}
    _write_json(layout.preprocessed / "splits_final.json", [fold])
    own = task.to_dict()
    own["classes"] = [{**each, "value": index} for index, each in enumerate(own["classes"], start=1)]
    _write_json(layout.output / "task.json", own)
    _write_table(layout.output / "cases.csv", labelled, split, task, layout)
    held_out = [case for case in labelled if case.case_id in split.test]
    _write_table(layout.output / "held_out.csv", held_out, split, task, layout)
    return split


def _convert_case(case: Case, task: Task, raw: Path, part: str) -> None:
    image, geometry = read_image(case)
    for folder in (raw / f"images{part}", raw / f"labels{part}"):
        folder.mkdir(parents=True, exist_ok=True)
    for channel, volume in enumerate(image):
        write_volume(raw / f"images{part}" / f"{case.case_id}_{channel:04d}.nii.gz", volume, geometry)
    label, _ = read_label_map(label_path(case))
    # Last, for it tells that the case is complete.
    write_volume(raw / f"labels{part}" / f"{case.case_id}.nii.gz", to_class_indices(label, task), geometry)


def _channel_name(task: Task, index: int) -> str:
    """nnU-Net clips and scales a channel named CT by statistics of the foreground, and any other by the image's own."""
    return "CT" if task.modality == "CT" else f"{task.modality}_{task.channels[index]}"


def _write_table(path: Path, cases: Sequence[Case], split: Split, task: Task, layout: Layout) -> None:
    """A case list of the converted files, for this library."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "group", *(f"image_{index}" for index in range(len(task.channels))), "label"])
        for case in cases:
            part = "Ts" if case.case_id in split.test else "Tr"
            images = [
                layout.raw / f"images{part}" / f"{case.case_id}_{index:04d}.nii.gz"
                for index in range(len(task.channels))
            ]
            label = layout.raw / f"labels{part}" / f"{case.case_id}.nii.gz"
            writer.writerow([case.case_id, case.group, *images, label])


class Steps:
    """Runs commands once each, and keeps how long they took.

    Args:
        layout: where the record lies.
        environment: folder of nnU-Net's Python environment.
    """

    def __init__(self, layout: Layout, environment: Path) -> None:
        self.layout = layout
        self.bin = environment / ("Scripts" if os.name == "nt" else "bin")
        self.record = layout.output / "steps.json"
        self.done: dict[str, dict[str, Any]] = json.loads(self.record.read_text()) if self.record.is_file() else {}

    def run(self, name: str, command: Sequence[str]) -> float:
        """Run a command, or find that it was run before; its seconds.

        Raises:
            subprocess.CalledProcessError: it failed; its output was shown.
        """
        if name in self.done:
            return self.done[name]["seconds"]
        sys.stdout.write(f"{name}: {shlex.join(command)}\n")
        sys.stdout.flush()
        folders = {
            f"nnUNet_{part}": str(self.layout.output / f"nnUNet_{part}") for part in ("raw", "preprocessed", "results")
        }
        workers = {"nnUNet_n_proc_DA": str(min(4, os.cpu_count() or 1)), "nnUNet_compile": "false"}
        started = time.monotonic()
        subprocess.run(list(command), check=True, env={**os.environ, **folders, **workers})
        self.done[name] = {"command": shlex.join(command), "seconds": round(time.monotonic() - started, 1)}
        _write_json(self.record, self.done)
        return self.done[name]["seconds"]

    def nnunet(self, name: str, program: str, *arguments: str) -> float:
        """One of nnU-Net's own commands."""
        return self.run(name, [str(self.bin / program), *arguments])

    def ours(self, name: str, *arguments: str) -> float:
        """One of this library's commands."""
        return self.run(name, [sys.executable, "-m", "ForgettableSegLib", *arguments])


def install(environment: Path) -> None:
    """Make nnU-Net's environment, unless it is there."""
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(environment, with_pip=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", NNUNET], check=True)


def train_nnunet(steps: Steps, *, epochs: int, device: str, memory_gb: float | None) -> float:
    """Plan, train and predict with nnU-Net; seconds of its training alone."""
    number = DATASET[len("Dataset") :].split("_")[0]
    trainer = "nnUNetTrainer" if epochs == 1000 else f"nnUNetTrainer_{epochs}epoch{'s' if epochs > 1 else ''}"
    processes, predictions = str(min(4, os.cpu_count() or 1)), str(steps.layout.predictions("nnunet"))
    steps.nnunet(
        "nnunet preprocess", "nnUNetv2_plan_and_preprocess", "-d", number, "-c", "2d", "-np", processes,
        "--verify_dataset_integrity", *(() if memory_gb is None else ("-gpu_memory_target", f"{memory_gb:g}")),
    )  # fmt: skip
    seconds = steps.nnunet("nnunet train", "nnUNetv2_train", number, "2d", "0", "-tr", trainer, "-device", device)
    steps.nnunet(
        "nnunet predict", "nnUNetv2_predict", "-i", str(steps.layout.raw / "imagesTs"), "-o", predictions,
        "-d", number, "-c", "2d", "-f", "0", "-tr", trainer, "-device", device, "-npp", "1", "-nps", "1",
    )  # fmt: skip
    return seconds


def train_ours(steps: Steps, *, minutes: float, seed: int, device: str, settings: Sequence[str]) -> None:
    """Train for the same time, and segment the held-out cases."""
    output = steps.layout.output
    extra = [part for setting in settings for part in ("--set", setting)]
    steps.ours(
        "ours train", "train", str(output / "cases.csv"), "--task", str(output / "task.json"),
        "--run", str(output / "run"), "--name", "side by side", "--minutes", f"{minutes:.3f}", "--seed", str(seed),
        "--device", device, *extra,
    )  # fmt: skip
    steps.ours(
        "ours predict", "segment", str(output / "held_out.csv"), "--model", str(output / "run" / "model"),
        "--output", str(steps.layout.predictions("ours")), "--device", device, "--no-heatmap",
    )  # fmt: skip


def report(steps: Steps, split: Split, *, epochs: int, minutes: float) -> str:
    """Judge both and write the report; its text."""
    layout = steps.layout
    steps.ours(
        "evaluate", "evaluate", "--predictions", str(layout.predictions("nnunet")),
        "--compare", str(layout.predictions("ours")), "--references", str(layout.raw / "labelsTs"),
        "--task", str(layout.output / "task.json"), "--output", str(layout.output / "evaluation"),
    )  # fmt: skip
    found = json.loads((layout.output / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    rows = [
        [
            row["name"], row["metric"], row["count"], _number(row["first"]), _number(row["second"]),
            _number(row["difference"]), f"{_number(row['low'])} to {_number(row['high'])}", _number(row["p_value"]),
            f"{row['better']}/{row['worse']}",
        ]
        for row in found["comparison"]
    ]  # fmt: skip
    header = ["class", "metric", "cases", "nnU-Net", "ours", "difference", "95 % interval", "p", "better/worse"]
    lines = [
        "# nnU-Net v2 (2D) and ForgettableSeg side by side",
        f"{len(split.train)} training, {len(split.validation)} validation and {len(split.test)} held-out cases, the "
        f"same for both. nnU-Net: {epochs} epochs, one fold, its own planning and test-time mirroring. Ours: "
        f"{minutes:.1f} minutes, by default the wall-clock of nnU-Net's training, in which it also segments its "
        f"validation cases. One training each. {machine()}",
        markdown(header, rows),
        "Second minus first, paired by case; bootstrap interval of the mean; Wilcoxon signed-rank p, uncorrected.",
        markdown(
            ["step", "seconds", "command"], [[k, v["seconds"], f"`{v['command']}`"] for k, v in steps.done.items()]
        ),
    ]
    text = "\n\n".join(lines) + "\n"
    (layout.output / "side_by_side.md").write_text(text, encoding="utf-8")
    return text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is left to do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", help="case list with labels")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--task", help="JSON file of the task, if the case list has none")
    parser.add_argument("--environment", type=Path, help="of nnU-Net (default: OUTPUT/environment)")
    parser.add_argument("--epochs", type=int, choices=EPOCHS, default=50, help="of nnU-Net, 250 iterations each")
    parser.add_argument(
        "--memory-gb",
        type=float,
        help="that nnU-Net plans its batch for (default: its own choice)",
    )
    parser.add_argument("--minutes", type=float, help="of ours (default: as long as nnU-Net's training took)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "mps"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="training setting of ours")
    parser.add_argument("--convert-only", action="store_true")
    options = parser.parse_args(arguments)
    layout = Layout(options.output.absolute())
    task = Task.from_dict(json.loads(Path(options.task).read_text(encoding="utf-8"))) if options.task else None
    cases = read_case_list(options.cases, task=task)
    if cases.task is None:
        parser.error("the case list does not name its classes; give --task")
    split = convert(cases, cases.task, layout, seed=options.seed)
    if options.convert_only:
        return
    environment = (options.environment or layout.output / "environment").absolute()
    install(environment)
    steps = Steps(layout, environment)
    seconds = train_nnunet(steps, epochs=options.epochs, device=options.device, memory_gb=options.memory_gb)
    minutes = options.minutes or seconds / 60
    train_ours(steps, minutes=minutes, seed=options.seed, device=options.device, settings=options.set)
    sys.stdout.write(report(steps, split, epochs=options.epochs, minutes=minutes))


if __name__ == "__main__":
    main()
