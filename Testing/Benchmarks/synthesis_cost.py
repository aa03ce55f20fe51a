"""What making images from label maps costs a training step of the model `brain`.

    PYTHONPATH=. python Testing/Benchmarks/synthesis_cost.py HEAD_LABELS [--steps 30] [--batch 4] [--patch 96 112]

Reading and synthesis are timed within each step, one after the other in one thread, in seconds of the processor, so
that what else the machine does meets both alike. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import machine, markdown, spread
from training_window import Clock

from ForgettableSegLib.cases.cache import CaseCache
from ForgettableSegLib.cases.case_list import read_case_list
from ForgettableSegLib.cases.recipe import Preprocessing
from ForgettableSegLib.cases.synthesis_recipe import find_recipe
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.network.build import NetworkArguments, build_network
from ForgettableSegLib.training.checkpoint import CheckpointFolder
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.patches import PatchReader
from ForgettableSegLib.training.recorder import Recorder
from ForgettableSegLib.training.settings import TrainingSettings
from ForgettableSegLib.training.synthetic_cases import as_label_maps
from ForgettableSegLib.training.trainer import Trainer

TASK_FILE = Path(__file__).with_name("brain.task.json")
CONTEXT_SLICES, FEATURES, SPACING = 2, (16, 32, 64, 128, 192), (1.5, 1.5, 1.5)
WARM_UP = 3


class Timed:
    """A function that adds up the processor's seconds of its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function."""
        started = time.process_time()
        result = self.function(*arguments, **named)
        self.seconds += time.process_time() - started
        return result


def make_trainer(cases: Path, folder: Path, batch: int, patch: list[int]) -> Trainer:
    """A trainer with the settings that decide the cost of a step of the model `brain`."""
    task = Task.from_dict(json.loads(TASK_FILE.read_text(encoding="utf-8")))
    recipe = find_recipe("head", task)
    listed = as_label_maps(read_case_list(cases, task=task)).cases[:3]
    preprocessing = Preprocessing(2, "MR", 1, SPACING)
    prepared = CaseCache(folder / "cache").prepare(listed, task, preprocessing, recipe=recipe)
    values = {"synthesis": "head", "context_slices": CONTEXT_SLICES, "features": list(FEATURES), "batch_size": batch}
    values |= {"optimizer": "adamw", "weight_average": 0.998, "augmentation": False, "spatial_augmentation": False}
    settings = TrainingSettings.from_dict({**values, "loss": "balanced", "iterations": 1000, "checkpoint_every": 10**6})
    network = build_network(
        NetworkArguments(
            spatial_dims=2,
            in_channels=1,
            out_channels=task.num_classes,
            features=FEATURES,
            fusion=settings.fusion_mode,
            text_shape=(len(task.classes), 384),
            context_slices=CONTEXT_SLICES,
        ).to_dict()
    )
    return Trainer(
        network=network,
        settings=settings,
        reader=PatchReader(
            prepared, patch, context_slices=CONTEXT_SLICES, recipe=recipe, sides_axis=preprocessing.sides_axis
        ),
        validation_cases=[],
        class_names=[each.name for each in task.classes],
        patch_size=patch,
        device=torch.device("cpu"),
        group=ProcessGroup(),
        recorder=Recorder(Clock(), folder, is_main=True),
        checkpoints=CheckpointFolder(folder / "checkpoints", ""),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", type=Path, help="folder of label maps of heads")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--patch", type=int, nargs=2, default=[96, 112])
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        trainer = make_trainer(options.cases, Path(temporary), options.batch, options.patch)
        trainer.reader.read = read = Timed(trainer.reader.read)
        trainer.synthesis = synthesis = Timed(trainer.synthesis)
        for number in range(WARM_UP + options.steps):
            before = read.seconds, synthesis.seconds, time.process_time()
            batch = trainer.reader.read(trainer.sampler.references(number), trainer.sampler.draw(number))
            trainer._train_iteration(number, batch)
            rows.append([read.seconds - before[0], synthesis.seconds - before[1], time.process_time() - before[2]])
    rows = rows[WARM_UP:]
    reading, making, whole = zip(*rows, strict=True)
    shares = [100 * (one + other) / step for one, other, step in rows]
    print(f"Batch {options.batch}, patch {options.patch[0]}x{options.patch[1]}, {options.steps} steps. {machine()}\n")
    table = [["deform and read, ms", spread([1000 * one for one in reading], 0)]]
    table += [["make images, ms", spread([1000 * one for one in making], 0)]]
    table += [["whole step, ms", spread([1000 * one for one in whole], 0)], ["both, % of the step", spread(shares, 1)]]
    print(markdown(["", "processor time"], table))


if __name__ == "__main__":
    main()
