"""What is planned where the settings leave it open, and what a time is spent on."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from ForgettableSegLib.cases.recipe import Preprocessing
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.training import budget
from ForgettableSegLib.training.budget import LEAST_SHARE, RESERVE, VALIDATION_SHARE, Stopwatch, TimeBudget
from ForgettableSegLib.training.planning import (
    FEWEST_PASSES,
    FEWEST_STEPS,
    LARGEST_PATCH_CPU,
    SMALLEST_BATCH,
    STEP_VOXELS,
    TRAINING_SHARE,
    Plan,
    bytes_a_voxel,
    coarser,
    default_features,
    measure_speed,
    plan_training,
    planned_mirror_axes,
)
from ForgettableSegLib.training.settings import TrainingSettings

CPU = torch.device("cpu")
GIB = 2**30
HIPPOCAMPUS = [(35, 50, 36)] * 100
ABDOMEN = [(36, 256, 256)] * 9


def task(*classes: dict[str, str]) -> Task:
    listed = tuple(SegmentClass(value=value, **each) for value, each in enumerate(classes, start=1))
    return Task("t", "MR", ("T1",), listed)


def plan(
    shapes: list[tuple[int, int, int]], *, memory: float = 8 * GIB, seconds: float | None = None, **values
) -> Plan:
    settings = TrainingSettings(**{"spatial_dims": 2, **values})
    features = settings.features or default_features(settings.spatial_dims, CPU)
    return plan_training(
        shapes, settings, features=features, channels=1, device=CPU, memory=int(memory), seconds_a_voxel=seconds
    )


def test_small_slices_come_in_the_largest_batch() -> None:
    planned = plan(HIPPOCAMPUS)
    assert (planned.patch_size, planned.batch_size, planned.coarsening) == ((64, 48), 32, 1)


def test_a_processor_never_starts_with_many_large_slices() -> None:
    planned = plan(ABDOMEN)
    assert planned.patch_size == (256, 256)
    assert planned.batch_size == SMALLEST_BATCH[2]
    assert "4 patches of 256 x 256" in planned.reason


@pytest.mark.parametrize("shape", [(35, 50, 36), (160, 256, 256), (512, 512, 512), (20, 400, 400)])
def test_three_dimensions_fit_into_eight_gib(shape: tuple[int, int, int]) -> None:
    planned = plan([shape] * 3, spatial_dims=3, memory=8 * GIB * 0.5)
    needed = planned.batch_size * math.prod(planned.patch_size) * bytes_a_voxel(default_features(3, CPU), 3, 1)
    assert planned.batch_size >= SMALLEST_BATCH[3]
    assert needed < 4 * GIB
    assert max(planned.patch_size) <= LARGEST_PATCH_CPU[3]
    assert all(size % 8 == 0 for size in planned.patch_size)


def test_little_memory_shrinks_the_patch_before_the_batch_is_too_small() -> None:
    planned = plan([(512, 512, 512)], spatial_dims=3, memory=0.2 * GIB)
    assert planned.batch_size >= SMALLEST_BATCH[3]
    assert math.prod(planned.patch_size) < 64**3


def test_what_is_set_stays_and_too_much_is_told() -> None:
    planned = plan(ABDOMEN, batch_size=32, patch_size=(256, 256), memory=0.5 * GIB)
    assert (planned.batch_size, planned.patch_size) == (32, (256, 256))
    assert planned.is_too_large
    assert not plan(ABDOMEN, batch_size=2, patch_size=(64, 64)).is_too_large


def test_little_time_takes_coarser_slices_and_more_steps() -> None:
    voxels = sum(math.prod(shape) for shape in ABDOMEN)
    minutes = 4
    # So slow that the time is enough for two passes only at full resolution.
    seconds = minutes * 60 * TRAINING_SHARE / (0.5 * FEWEST_PASSES * voxels)
    planned = plan(ABDOMEN, minutes=minutes, seconds=seconds)
    assert planned.coarsening == 2
    assert planned.patch_size == (128, 128)
    assert "2 times the cases' spacing" in planned.reason
    assert planned.batch_size * 128**2 <= STEP_VOXELS["cpu"]
    plenty = plan(ABDOMEN, minutes=minutes, seconds=seconds / 1000)
    assert (plenty.coarsening, plenty.patch_size) == (1, (256, 256))
    steps = minutes * 60 * TRAINING_SHARE / (seconds * planned.batch_size * 128**2)
    assert steps >= FEWEST_STEPS or planned.batch_size == SMALLEST_BATCH[2]


def test_small_cases_are_never_made_coarser() -> None:
    assert plan(HIPPOCAMPUS, minutes=0.1, seconds=1.0).coarsening == 1


def test_coarser_leaves_the_distance_of_slices() -> None:
    two = Preprocessing(2, "MR", 0, (None, 1.5, 1.25))
    assert coarser(two, 2).spacing == (None, 3.0, 2.5)
    assert coarser(dataclasses.replace(two, spacing=(5.0, 1.5, 1.25)), 2).spacing == (5.0, 3.0, 2.5)
    three = Preprocessing(3, "MR", 0, (2.0, 1.5, 1.25))
    assert coarser(three, 2).spacing == (4.0, 3.0, 2.5)
    assert coarser(three, 1) == three


@pytest.mark.parametrize("dims", [2, 3])
def test_the_speed_is_measured(dims: int) -> None:
    assert 0 < measure_speed((4, 8), channels=1, spatial_dims=dims, device=CPU) < 1e-3


def test_what_follows_the_steps_is_kept_in_reserve() -> None:
    budget = TimeBudget.plan(minutes=4, spent=30, validation=2, afterwards=20)
    assert budget.seconds == pytest.approx(240 - 30 - RESERVE * 20)
    assert budget.validations * 2 <= VALIDATION_SHARE * budget.seconds
    assert TimeBudget.plan(minutes=4, spent=30, validation=100, afterwards=900).seconds == LEAST_SHARE * 240
    assert TimeBudget.plan(minutes=4, spent=30, validation=100, afterwards=900).validations == 0
    assert TimeBudget.plan(minutes=4, spent=0, validation=0, afterwards=0).validations == 9


def test_what_a_validation_takes_corrects_what_comes_afterwards() -> None:
    budget = TimeBudget.plan(minutes=4, spent=0, validation=2, afterwards=20)
    seconds = budget.seconds
    budget.correct(2)
    assert (budget.seconds, budget.afterwards) == (seconds, 20)
    budget.correct(4)
    assert budget.afterwards == 30
    assert budget.seconds == pytest.approx(seconds - RESERVE * 10)


def test_validations_are_spread_over_the_time() -> None:
    budget = TimeBudget(100.0, validations=3)
    made, when = 0, []
    for second in range(101):
        if budget.validation_due(budget.done(second), made):
            made += 1
            when.append(second)
    assert when == [25, 50, 75]


def test_the_number_of_steps_follows_the_speed() -> None:
    budget = TimeBudget(100.0)
    assert budget.expected_steps(10, 20.0, 2.0) == 50
    assert budget.expected_steps(10, 20.0, 4.0) == 30
    assert budget.expected_steps(60, 101.0, 2.0) == 60


def test_a_pause_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])

    def pause() -> None:
        now[0] += 1000

    watch = Stopwatch(5.0)
    now[0] += 2
    watch.without(pause)
    now[0] += 1
    assert watch.read() == 8


@pytest.mark.parametrize(
    ("classes", "axes"),
    [
        ([{"name": "anterior hippocampus"}, {"name": "posterior hippocampus"}], (2,)),
        ([{"name": "liver"}, {"name": "Kidney_R"}], ()),
        ([{"name": "a", "prompt": "the left atrium"}], ()),
        ([{"name": "brightness"}, {"name": "cleft"}], (2,)),
    ],
)
def test_only_where_no_class_is_of_one_side_patches_are_mirrored(
    classes: list[dict[str, str]], axes: tuple[int, ...]
) -> None:
    assert planned_mirror_axes(task(*classes), 2) == axes


@pytest.mark.parametrize(
    ("values", "dims"),
    [
        ({}, None),
        ({"patch_size": (16, 16)}, 2),
        ({"patch_size": (16, 16, 16)}, 3),
        ({"slice_axis": 0}, 2),
        ({"context_slices": 1}, 2),
        ({"spatial_dims": 3, "slice_axis": 0}, 3),
        ({"preset": "paper"}, 2),
    ],
)
def test_the_dimension_is_open_unless_a_setting_implies_it(values: dict, dims: int | None) -> None:
    assert TrainingSettings.from_dict(values).wanted_dims == dims
