"""What each module of the method costs: the training step with it over the step of the plain U-Net.

    python Testing/Benchmarks/step_cost.py [--windows 5] [--device cpu]

All variants live side by side and take turns, a window of F iterations each, so that whatever else the machine does
meets them alike; within a window every position of the replay cycle occurs once. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from common import TASK, ball_cases, machine, markdown, spread

from ForgettableSegLib.cases.cache import CaseCache, PreparedCase
from ForgettableSegLib.cases.case_list import cases_from_dicts
from ForgettableSegLib.cases.preprocessing import plan_preprocessing
from ForgettableSegLib.inference.device import resolve_device
from ForgettableSegLib.network.build import NetworkArguments, build_network
from ForgettableSegLib.training.checkpoint import CheckpointFolder
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.patches import PatchReader
from ForgettableSegLib.training.recorder import Recorder
from ForgettableSegLib.training.settings import TrainingSettings
from ForgettableSegLib.training.trainer import Trainer

REPLAY_EVERY = 10
WARM_UP_WINDOWS = 3
TEXT_LENGTH = 384
VARIANTS: dict[str, dict[str, Any]] = {
    "plain U-Net": {"tgf": False, "pbs": False, "fsb": False},
    "text-guided fusion (tgf)": {"tgf": True, "pbs": False, "fsb": False},
    "scoring (pbs)": {"tgf": False, "pbs": True, "fsb": False},
    "scoring and bank (pbs, fsb)": {"tgf": False, "pbs": True, "fsb": True},
    "all three": {"tgf": True, "pbs": True, "fsb": True},
}


class Clock:
    """A listener of a run that only notes when each iteration ended."""

    is_cancelled = False

    def __init__(self) -> None:
        self.ends: list[float] = []

    def progress(self, phase: str, step: float, of: float, *, case: str | None = None) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())

    def metric(self, name: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Not wanted here."""

    def log(self, text: str) -> None:
        """Not wanted here."""

    def warning(self, text: str, *, case: str | None = None) -> None:
        """Not wanted here."""

    def artifact(self, kind: str, path: Path | str, *, case: str | None = None) -> None:
        """Not wanted here."""

    def case_failed(self, case: str, error: BaseException) -> None:
        """Not wanted here."""

    def check_cancelled(self) -> None:
        """It never is."""


class Variant:
    """A trainer that runs window after window, and the seconds of each step.

    Args:
        modules: which of tgf, pbs and fsb are on.
        cases: to train on.
        options: of the command line.
        folder: for checkpoints.
    """

    def __init__(
        self, modules: dict[str, Any], cases: list[PreparedCase], options: argparse.Namespace, folder: Path
    ) -> None:
        folder.mkdir()
        patch_size = (options.patch,) * 2
        settings = TrainingSettings.from_dict(
            {**modules, "replay_every": REPLAY_EVERY, "batch_size": options.batch, "selection": "score"}
            | {"patch_size": patch_size, "iterations": REPLAY_EVERY, "checkpoint_every": 10**6}
        )
        torch.manual_seed(0)
        network = build_network(
            NetworkArguments(
                spatial_dims=2,
                in_channels=1,
                out_channels=TASK.num_classes,
                features=settings.features,
                fusion=settings.fusion_mode,
                text_shape=(TASK.num_classes - 1, TEXT_LENGTH) if settings.tgf else None,
            ).to_dict()
        )
        self.clock = Clock()
        device = resolve_device(options.device)
        self.trainer = Trainer(
            network=network.to(device),
            settings=settings,
            reader=PatchReader(cases, patch_size),
            validation_cases=[],
            class_names=[each.name for each in TASK.classes],
            patch_size=patch_size,
            device=device,
            group=ProcessGroup(),
            recorder=Recorder(self.clock, folder),
            checkpoints=CheckpointFolder(folder / "checkpoint"),
        )
        self.scoring = Stopwatch(self.trainer.miner.observe)
        self.trainer.miner.observe = self.scoring
        self.trainer.total = 0

    def run_window(self) -> tuple[float, float]:
        """Run a window of F iterations after one that fills the pipeline; return seconds a step, and of scoring."""
        self.clock.ends.clear()
        self.scoring.seconds.clear()
        self.trainer.total += REPLAY_EVERY + 1
        self.trainer.run()
        step = (self.clock.ends[-1] - self.clock.ends[0]) / REPLAY_EVERY
        return step, statistics.fmean(self.scoring.seconds[1:])


class Stopwatch:
    """A function that notes how long each of its calls took."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds: list[float] = []

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function."""
        started = time.perf_counter()
        result = self.function(*arguments, **named)
        self.seconds.append(time.perf_counter() - started)
        return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--windows", type=int, default=5, help="windows of F iterations that are measured")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        listed = cases_from_dicts(ball_cases(folder / "cases", 12, size=(40, 52, 36)))
        preprocessing = plan_preprocessing(list(listed), TASK, spatial_dims=2)
        cases = CaseCache(folder / "cache").prepare(list(listed), TASK, preprocessing)
        variants = {
            name: Variant(modules, cases, options, folder / str(number))
            for number, (name, modules) in enumerate(VARIANTS.items())
        }
        for _ in range(WARM_UP_WINDOWS):
            for variant in variants.values():
                variant.run_window()
        times = [{name: variant.run_window() for name, variant in variants.items()} for _ in range(options.windows)]
    plain = next(iter(VARIANTS))
    rows = []
    for name in VARIANTS:
        steps = [window[name][0] for window in times]
        ratios = [window[name][0] / window[plain][0] for window in times]
        shares = [100 * window[name][1] / window[name][0] for window in times]
        rows.append([name, spread([1000 * step for step in steps], 0), spread(ratios, 2), spread(shares, 1)])
    print(f"Batch {options.batch}, patch {options.patch}x{options.patch}, F={REPLAY_EVERY}, {options.windows} windows.")
    print(machine(resolve_device(options.device)))
    print()
    print(markdown(["variant", "ms a step", "over the plain U-Net", "scoring, % of the step"], rows))


if __name__ == "__main__":
    main()
