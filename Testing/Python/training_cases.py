"""A small training run that tests start, stop and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from synthetic import TASK

from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.errors import Cancelled
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.run import TrainingOutcome, resume_training, run_training
from ForgettableSegLib.training.settings import TrainingSettings

CPU = torch.device("cpu")
SMALL = {
    "spatial_dims": 2,
    "mirror_axes": [],
    # So few steps learn most with a high rate from the beginning; the other way has its own tests.
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "momentum": 0.95,
    "weight_decay": 3e-5,
    "schedule": "poly",
    "warm_up": 0.0,
    "weight_average": 0.0,
    "deep_supervision": False,
    "features": [8, 12, 16],
    "batch_size": 8,
    "iterations": 24,
    "validate_every": 8,
    "checkpoint_every": 6,
    "bank_batches": 2,
    "replay_every": 2,
    "prototype_min_count": 1,
    "rho": 0.25,
    "text": "random",
}


class Listener:
    """Remembers what a run tells, and stops it at a given training iteration."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.metrics: list[tuple[str, int, dict]] = []
        self.texts: list[str] = []
        self.failed: list[str] = []
        self.stop_at = stop_at
        self.step = 0

    def metric(self, name: str, iteration: int, values: dict) -> None:
        """Remember the numbers."""
        self.metrics.append((name, iteration, dict(values)))

    def progress(self, phase: str, step: float, of: float, *, case: str | None = None) -> None:
        """Remember how far training has come."""
        if phase == "train":
            self.step = step

    def log(self, text: str) -> None:
        """Remember the text."""
        self.texts.append(text)

    def warning(self, text: str, *, case: str | None = None) -> None:
        """Remember the text."""
        self.texts.append(text)

    def artifact(self, kind: str, path: Path | str, *, case: str | None = None) -> None:
        """What is announced must be there."""
        assert Path(path).exists()

    def case_failed(self, case: str, error: BaseException) -> None:
        """Remember the case."""
        self.failed.append(case)

    def check_cancelled(self) -> None:
        """Stop where the test wants it."""
        if self.is_cancelled:
            raise Cancelled

    @property
    def is_cancelled(self) -> bool:
        """Whether the test wants the run to stop."""
        return self.stop_at is not None and self.step >= self.stop_at


def train(cases: CaseList, folder: Path, listener: Listener | None = None, **overrides: Any) -> TrainingOutcome:
    """Run the small training; `settings` replaces some of `SMALL`, other arguments are those of `run_training`."""
    settings = TrainingSettings.from_dict({**SMALL, **overrides.pop("settings", {})})
    arguments = {"task": TASK, "name": "balls", "device": CPU, "cache": folder.parent / "cache", **overrides}
    return run_training(cases=cases, folder=folder, settings=settings, listener=listener or Listener(), **arguments)


def resume(folder: Path, listener: Listener | None = None, group: ProcessGroup | None = None) -> TrainingOutcome:
    """Go on with the small training."""
    cache = folder.parent / "cache"
    return resume_training(folder=folder, device=CPU, listener=listener or Listener(), group=group, cache=cache)


def weights(outcome: TrainingOutcome) -> dict[str, torch.Tensor]:
    """Everything that a run has learnt."""
    return {**outcome.network.state_dict(), **{f"prototype {k}": v for k, v in outcome.prototypes.items()}}


def assert_same(one: TrainingOutcome, other: TrainingOutcome) -> None:
    """Two runs have learnt the same, bit for bit."""
    assert one.best_iteration == other.best_iteration
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name
