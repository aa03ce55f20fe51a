"""A run that is killed at any moment goes on from its last checkpoint and ends as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from synthetic import write_cases
from training_cases import assert_same, resume, train

from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")

# Checkpoints all the time, so that many kills fall into the writing of one.
SETTINGS = {"iterations": 40, "checkpoint_every": 1, "validate_every": 10}


def _work(cases: CaseList, folder: Path) -> None:
    """Begin the run, or go on with it, in a process of its own."""
    torch.set_num_threads(1)
    if (folder / "config.json").exists():
        resume(folder)
    else:
        train(cases, folder, settings=SETTINGS)


def _run_for(cases: CaseList, folder: Path, seconds: float) -> bool:
    """Start the run in a process, kill it after some time; whether it was killed before it ended."""
    process = multiprocessing.get_context("fork").Process(target=_work, args=(cases, folder))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL), "a resumed run failed by itself"
    return process.exitcode != 0


@pytest.mark.parametrize("times", [15, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_run_always_goes_on(
    times: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = write_cases(tmp_path / "cases", 6)
    whole = train(cases, tmp_path / "whole", settings=SETTINGS)
    moments = random.Random(0)
    kills = survived = writing = 0
    generation = 0
    while kills < times:
        folder = tmp_path / f"cut{generation}"
        # Before the first checkpoint there is nothing to resume: such a run is begun anew.
        while kills < times and _run_for(cases, folder, moments.uniform(0.05, 0.9)):
            kills += 1
            checkpoints = folder / "checkpoint"
            writing += any(checkpoints.glob("writing-*"))
            if not any(checkpoints.glob("*.pt")):
                folder.rename(tmp_path / f"unborn{kills}")
            survived += 1
        if (folder / "config.json").exists():
            assert_same(whole, resume(folder))
            assert (folder / "history.csv").read_text() == (tmp_path / "whole" / "history.csv").read_text()
        generation += 1
    with capsys.disabled():
        print(f"\nkills survived: {survived} of {times} ({writing} while a checkpoint was being written)")
    assert survived == times


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "cases", 6)
    folder = tmp_path / "run"
    process = multiprocessing.get_context("fork").Process(target=_work, args=(cases, folder))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while not any((folder / "checkpoint").glob("*.pt")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(ForgettableSegError, match="Another training is running") as caught:
            resume(folder)
        assert caught.value.code == ErrorCode.RUN_LOCKED
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    # The system has let go of the dead process's lock.
    assert resume(folder).iterations == SETTINGS["iterations"]
