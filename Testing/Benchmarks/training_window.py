"""Training in windows of a replay cycle each, timed step by step: what the benchmarks of training measure with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ForgettableSegLib.cases.cache import PreparedCase
from ForgettableSegLib.network.build import NetworkArguments, build_network
from ForgettableSegLib.training.checkpoint import CheckpointFolder
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.patches import PatchReader
from ForgettableSegLib.training.planning import default_features
from ForgettableSegLib.training.recorder import Recorder
from ForgettableSegLib.training.settings import TrainingSettings
from ForgettableSegLib.training.told import PROTOTYPES
from ForgettableSegLib.training.trainer import Trainer

REPLAY_EVERY = 10
TEXT_LENGTH = 384


class Clock:
    """A listener of a run that only notes when each iteration ended."""

    is_cancelled = False

    def __init__(self, timer: Callable[[], float] = time.perf_counter) -> None:
        self.timer = timer
        self.ends: list[float] = []

    def progress(self, phase: str, step: float, of: float, *, case: str | None = None) -> None:
        """Note the time."""
        self.ends.append(self.timer())

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


class Stopwatch:
    """A function that notes how long each of its calls took."""

    def __init__(self, function: Callable[..., Any], timer: Callable[[], float]) -> None:
        self.function = function
        self.timer = timer
        self.seconds: list[float] = []

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function."""
        started = self.timer()
        result = self.function(*arguments, **named)
        self.seconds.append(self.timer() - started)
        return result


class TimedTraining:
    """A trainer that runs windows of F iterations, in each of which every position of the replay cycle occurs once.

    Args:
        values: training settings, `patch_size` among them.
        cases: to train on.
        class_names: of the foreground classes.
        folder: for checkpoints.
        device: where to compute.
        timer: a clock in seconds; that of the processor on a machine with other work.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        cases: Sequence[PreparedCase],
        *,
        class_names: Sequence[str],
        folder: Path,
        device: torch.device,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        folder.mkdir()
        settings = TrainingSettings.from_dict(
            {
                "replay_every": REPLAY_EVERY,
                "iterations": REPLAY_EVERY,
                "checkpoint_every": 10**6,
                "validate_every": 10**6,
                "dynamics": False,
                **values,
            }
        )
        torch.manual_seed(0)
        network = build_network(
            NetworkArguments(
                spatial_dims=2,
                in_channels=1,
                out_channels=len(class_names) + 1,
                features=settings.features or default_features(2, torch.device("cpu")),
                fusion=settings.fusion_mode,
                text_shape=(len(class_names), TEXT_LENGTH) if settings.tgf else None,
                deep_supervision=settings.deep_supervision,
                distributions=settings.aux_loss == "scdl",
                memory=settings.memory == "class",
                prototypes=PROTOTYPES if settings.guidance == "psa" and settings.tgf else 0,
            ).to_dict()
        )
        self.clock = Clock(timer)
        self.trainer = Trainer(
            network=network.to(device),
            settings=settings,
            reader=PatchReader(cases, settings.patch_size),
            validation_cases=[],
            class_names=class_names,
            patch_size=settings.patch_size,
            device=device,
            group=ProcessGroup(),
            recorder=Recorder(self.clock, folder),
            checkpoints=CheckpointFolder(folder / "checkpoint"),
        )
        self.scoring = Stopwatch(self.trainer.miner.observe, timer)
        self.trainer.miner.observe = self.scoring
        self.reading = Stopwatch(self.trainer.reader.read, timer)
        self.trainer.reader.read = self.reading
        self.trainer.planned = 0

    def run_window(self) -> tuple[float, float]:
        """Run a window after one iteration that fills the pipeline; return seconds a step, and of scoring."""
        for notes in (self.clock.ends, self.scoring.seconds, self.reading.seconds):
            notes.clear()
        self.trainer.planned += REPLAY_EVERY + 1
        self.trainer.run()
        step = (self.clock.ends[-1] - self.clock.ends[0]) / REPLAY_EVERY
        return step, statistics.fmean(self.scoring.seconds[1:])

    @property
    def reading_seconds(self) -> float:
        """Mean time of reading a batch in the last window, in its own thread or for a replay."""
        return statistics.fmean(self.reading.seconds)
