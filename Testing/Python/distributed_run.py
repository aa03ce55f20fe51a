"""What the tests of distributed training start under torchrun: trainings, and what this rank has learnt in each."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from synthetic import TASK, read_cases
from training_cases import Listener, resume, train, weights

from ForgettableSegLib.training.distributed import process_group


class DyingListener(Listener):
    """A rank that is killed in the middle of training."""

    def check_cancelled(self) -> None:
        """Never cancels."""

    @property
    def is_cancelled(self) -> bool:
        """Asked once an iteration; kills this process instead of answering for the tenth time."""
        self.step += 1
        if self.step == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return False


def main(folder: Path, runs: dict[str, dict]) -> None:
    """Train or resume each of `runs` in a folder of its name; its setting `die` names a rank that dies."""
    torch.set_num_threads(1)
    with process_group() as group:
        for run, settings in runs.items():
            dying = settings.pop("die", None)
            listener = DyingListener() if dying == group.rank else Listener()
            if (folder / run / "config.json").exists():
                outcome = resume(folder / run, listener, group=group)
            else:
                cases = read_cases(folder / "cases")
                outcome = train(cases, folder / run, listener, task=TASK, settings=settings, group=group)
            torch.save(weights(outcome), folder / f"{run}-rank{group.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
