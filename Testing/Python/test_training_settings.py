"""Training settings: presets, checks and JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.training.settings import CHOICES, PRESETS, RANGES, TrainingSettings


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_survives_json(preset: str) -> None:
    settings = TrainingSettings.from_dict({"preset": preset})
    assert TrainingSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_the_paper_preset_is_the_papers_text() -> None:
    paper = TrainingSettings.from_dict({"preset": "paper"})
    assert (paper.loss, paper.admission, paper.replacement, paper.score_mode) == ("ce", "topk", "random", "paper")
    assert (paper.rho, paper.bank_batches, paper.batch_size, paper.learning_rate) == (0.1, 10, 32, 0.01)
    assert (paper.prototype_beta, paper.prototype_warm_up, paper.isotropic) == (0.99, False, True)
    assert paper.replay_period == paper.bank_batches
    assert paper.bank_capacity == 320


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"learning_rat": 0.1}, "learning_rat"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"rho": 1.5}, "rho"),
        ({"patch_size": [64]}, "patch_size"),
        ({"patch_size": [64, 2]}, "patch_size"),
        ({"patch_size": "64"}, "patch_size"),
        ({"features": [32]}, "features"),
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"slice_axis": 3}, "slice_axis"),
        ({"preset": "best"}, "preset"),
        ({"fusion": "sum"}, "fusion"),
        ({"num_heads": 7}, "num_heads"),
        ({"pbs": False}, "selection"),
        ({"pbs": "yes"}, "pbs"),
        ({"seed": None}, "seed"),
        ({"split_ratios": [0, 1, 1]}, "split_ratios"),
        ({"minutes": 0}, "minutes"),
        ({"admission_window": [0.9, 0.7]}, "admission_window"),
        ({"admission_window": [0.7]}, "admission_window"),
        ({"admission_window": [0, 1.1]}, "admission_window"),
        ({"admission_window": ["low", "high"]}, "admission_window.*a number"),
        ({"admission_window": 0.7}, "admission_window.*a list of numbers"),
    ],
)
def test_a_bad_setting_is_named(values: dict, named: str) -> None:
    with pytest.raises(ForgettableSegError, match=named) as caught:
        TrainingSettings.from_dict(values)
    assert caught.value.code == ErrorCode.SETTING_INVALID


def test_every_check_is_of_a_setting_that_exists() -> None:
    names = {field.name for field in dataclasses.fields(TrainingSettings)}
    assert set(CHOICES) <= names
    assert set(RANGES) <= names
    assert all(set(values) <= names for values in PRESETS.values())


def test_modules_are_switched_one_by_one() -> None:
    plain = TrainingSettings.from_dict({"tgf": False, "pbs": False, "fsb": False})
    assert plain.fusion_mode == "none"
    assert TrainingSettings.from_dict({"pbs": False, "selection": "foreground"}).fsb
