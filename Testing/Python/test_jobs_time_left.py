"""The time left of a phase and of a job: steady on a steady machine, true where the speed changes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from test_jobs_context import Clock, recording

from ForgettableSegLib.jobs.time_left import HOLD_S


def _times(seconds_a_step: Callable[[int], float], *, steps: int, validate_every: int = 0) -> list[tuple[float, float]]:
    """Run steps by a clock of its own: (seconds passed, seconds left as told) of each event of training."""
    clock = Clock()
    context, events = recording(clock=clock)
    told: list[tuple[float, float]] = []
    context.progress("train", 0, steps)
    for step in range(1, steps + 1):
        if validate_every and step % validate_every == 0:
            for case in range(3):
                context.progress("validate the model", case, 2)
                clock.now += 2.0 * (case < 2)
        clock.now += seconds_a_step(step)
        context.progress("train", step, steps)
        if events[-1]["phase"] == "train" and events[-1]["eta_s"] is not None:
            told.append((clock.now, events[-1]["eta_s"]))
    return told


@pytest.mark.parametrize("validate_every", [0, 25])
def test_it_never_grows_on_a_steady_machine(validate_every: int) -> None:
    draw = random.Random(0)
    told = _times(lambda step: draw.uniform(0.3, 0.7), steps=400, validate_every=validate_every)
    left = [value for _, value in told]
    after_warm_up = left[10:]
    assert all(later <= earlier for earlier, later in itertools.pairwise(after_warm_up))
    end = told[-1][0]
    for now, value in told[100::20]:
        assert value == pytest.approx(end - now, rel=0.2, abs=3)


def test_a_slow_first_step_is_forgotten() -> None:
    told = _times(lambda step: 60.0 if step == 1 else 0.5, steps=400)
    now, left = next(entry for entry in told if entry[0] > 100)
    assert left == pytest.approx(told[-1][0] - now, rel=0.1)  # by the mean of all steps it would be twice as long


def test_it_rises_when_the_machine_really_becomes_slower() -> None:
    told = _times(lambda step: 0.5 if step <= 100 else 2.0, steps=400)
    end = told[-1][0]
    shown = {now: left for now, left in told if now > 50 + HOLD_S + 60}
    assert all(left == pytest.approx(end - now, rel=0.1, abs=3) for now, left in shown.items())


def test_the_whole_job_counts_what_comes_after_the_training() -> None:
    clock = Clock()
    context, events = recording(clock=clock)
    context.expect([("train", 0), ("calibrate", 4), ("evaluate the model", 6)], like="validate the model")
    context.progress("prepare train cases", 0, 1)
    assert events[-1]["job_eta_s"] is None
    context.progress("train", 0, 100)
    clock.now = 10.0
    context.progress("train", 10, 100)
    assert (events[-1]["eta_s"], events[-1]["job_eta_s"]) == (90.0, None), "how long judging takes is not known yet"
    context.progress("validate the model", 0, 2)
    clock.now = 16.0
    context.progress("validate the model", 2, 2)
    assert events[-1]["job_eta_s"] == pytest.approx(90 + 10 * 3)
    clock.now = 26.0
    context.progress("calibrate", 0, 4)
    clock.now = 29.0
    context.progress("calibrate", 1, 4)
    assert events[-1]["job_eta_s"] == pytest.approx(3 * 3 + 6 * 3)
