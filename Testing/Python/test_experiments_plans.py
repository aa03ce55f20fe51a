"""Plans of experiments: what is shipped, what is refused, and the regimes of data that they name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from synthetic import make_arrays

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.split import Split
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.experiments.plans import load_plan, plan_from_dict, ready_plans
from ForgettableSegLib.experiments.regimes import (
    CORRUPTIONS,
    corrupted,
    drawn,
    limited_split,
    to_corrupt,
    without_labels,
)
from ForgettableSegLib.training.settings import TrainingSettings

TABLES = {f"table{number}" for number in range(1, 9)}
OTHERS = {"text_controls", "fusion", "presets", "low_data", "noisy_labels", "mini", "prolearn", "scdl", "simmpnet"}
PLAN: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "settings": {"iterations": 10},
    "variants": [{"name": "a"}, {"name": "b", "settings": {"rho": 0.2}}],
    "baseline": "a",
    "seeds": [0, 1],
}


def test_the_tables_of_the_paper_and_the_controls_are_shipped() -> None:
    assert set(ready_plans()) == TABLES | OTHERS


@pytest.mark.parametrize("name", sorted(TABLES | OTHERS))
def test_every_shipped_plan_has_settings_that_train(name: str) -> None:
    plan = load_plan(name)
    assert plan.name == name
    runs = plan.runs()
    settings = [TrainingSettings.from_dict(plan.settings_of(run)) for run in runs]
    assert len({(each.iterations, each.batch_size, each.minutes, each.epochs) for each in settings}) == 1
    assert len(runs) == len(set(map(str, runs))) == len(plan.seeds) * len(plan.regimes) * len(plan.variants)
    of_a_seed = [str(each) for each, run in zip(settings, runs, strict=True) if run.seed == plan.seeds[0]]
    assert len(set(of_a_seed)) == len(plan.variants), "two variants are the same"


def test_table_2_is_table_1_by_surface_distance() -> None:
    one, two = load_plan("table1"), load_plan("table2")
    assert [one.settings_of(run) for run in one.runs()] == [two.settings_of(run) for run in two.runs()]
    assert two.metrics[0] == "hd95_mm"
    assert {variant.settings.get("architecture") for variant in one.variants} >= {"attention_unet", "unetr", "nnunet"}
    assert {variant.settings.get("loss") for variant in one.variants} >= {
        "tversky",
        "boundary",
        "boundary_dou",
        "focal",
    }
    assert "Mamba" in " ".join(one.notes)


def test_table_8_holds_capacity_and_period_apart() -> None:
    plan = load_plan("table8")
    pairs = [TrainingSettings.from_dict(plan.settings_of(run)) for run in plan.runs() if run.seed == 0]
    changed = {(each.bank_batches != 10, each.replay_period != 10) for each in pairs}
    assert changed == {(False, False), (True, False), (False, True)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": 1}, "colour"),
        ({"title": None, "name": "a/b"}, "folder"),
        ({"settings": {}}, "iterations"),
        ({"settings": {"iterations": 5, "minutes": 1}}, "minutes"),
        ({"baseline": "c"}, "baseline 'c'"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [0.5]}, "seeds"),
        ({"variants": []}, "variants"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "name of their own"),
        ({"variants": [{"name": "a", "settings": {"iterations": 5}}]}, "'iterations' of its own"),
        ({"regimes": [{"name": "few", "training_cases": 0}]}, "training_cases"),
        ({"regimes": [{"name": "bad", "corrupted_labels": 2}]}, "corrupted_labels"),
        ({"metrics": ["speed"]}, "metrics"),
        ({"extends": "nothing"}, "nothing"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ForgettableSegError, match=named) as caught:
        plan_from_dict({**copy.deepcopy(PLAN), **change}, source="mine")
    assert caught.value.code == ErrorCode.REQUEST_INVALID


def test_a_plan_of_the_users_own_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(PLAN))
    assert [run.label for run in load_plan(str(path)).runs()][:2] == ["a, all cases, seed 0", "b, all cases, seed 0"]
    path.write_text("{")
    with pytest.raises(ForgettableSegError, match="JSON"):
        load_plan(str(path))
    with pytest.raises(ForgettableSegError, match="neither") as caught:
        load_plan("table9")
    assert "table8" in caught.value.hint


def test_a_plan_can_be_cut_down() -> None:
    plan = plan_from_dict(PLAN, source="mine").changed(seeds=[5], iterations=3, variants=["b"], settings={"rho": 0.5})
    assert [plan.settings_of(run) for run in plan.runs()] == [{"iterations": 3, "rho": 0.2, "seed": 5}]
    assert plan.baseline == "b"
    with pytest.raises(ForgettableSegError, match="no variant 'x'"):
        plan.changed(variants=["x"])


def test_fewer_cases_are_among_more_and_the_held_out_stay() -> None:
    split = Split(
        *(tuple(f"{part}{index:02d}" for index in range(number)) for part, number in (("t", 40), ("v", 9), ("h", 9)))
    )
    assert limited_split(split, None, seed=1) is split
    few, more = (limited_split(split, number, seed=1) for number in (8, 32))
    assert (len(few.train), len(few.validation), few.test) == (8, 2, split.test)
    assert (len(more.train), len(more.validation)) == (32, 8)
    assert set(few.train) < set(more.train)
    assert set(few.validation) < set(more.validation)
    assert limited_split(split, 8, seed=2).train != few.train
    assert drawn(reversed(split.train), seed=1, purpose="train") == drawn(split.train, seed=1, purpose="train")


def test_a_share_of_the_cases_is_corrupted_in_every_way_alike() -> None:
    cases = [Case(f"c{index}", "g", (Path("image.nii"),), Path("label.nii")) for index in range(80)]
    chosen = to_corrupt(cases, 0.1, seed=3)
    assert len({case.case_id for case, _ in chosen}) == 8
    assert sorted(how for _, how in chosen) == sorted(CORRUPTIONS * 2)
    assert to_corrupt(cases, 0, seed=3) == []
    assert len(to_corrupt(cases[:3], 0.1, seed=3)) == 1


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corrupted_label_is_wrong_and_repeatable(kind: str) -> None:
    label = make_arrays(0)[1]
    before = label.copy()
    wrong = corrupted(label, kind, seed=5)
    assert np.array_equal(label, before)
    assert wrong.dtype == label.dtype
    assert not np.array_equal(wrong, label)
    assert np.array_equal(wrong, corrupted(label, kind, seed=5))
    assert set(np.unique(wrong)) <= {0, 1, 2}
    if kind == "swap":
        assert np.array_equal(wrong == 1, label == 2)
    if kind == "drop":
        assert len(np.unique(wrong)) == 2
        assert np.array_equal(wrong[wrong > 0], label[wrong > 0])
    if kind == "swell":
        assert np.array_equal(wrong > 0, distance_transform_edt(label == 0) <= 2)
        assert np.array_equal(wrong[label > 0], label[label > 0])
    if kind == "shift":
        assert not (wrong == label)[label > 0].all()


def test_a_shift_leaves_the_image_and_does_not_come_back() -> None:
    label = np.zeros((4, 4, 8), dtype=np.uint8)
    label[..., 4:] = 1
    shifted = [corrupted(label, "shift", seed=seed) for seed in range(12)]
    assert {int(each.sum()) for each in shifted} <= {label.sum() - 16, label.sum(), label.sum() - 12}
    assert all(each[..., :3].sum() == 0 for each in shifted)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_empty_label_stays_empty(kind: str) -> None:
    assert not corrupted(np.zeros((3, 4, 5), dtype=np.uint8), kind, seed=0).any()


def test_a_share_of_the_training_cases_keeps_its_labels() -> None:
    split = Split(tuple(f"c{n}" for n in range(20)), ("v",), ("t",))
    assert without_labels(split, 1.0, seed=0) == (split, set())
    few, lost = without_labels(split, 0.1, seed=0)
    more, _ = without_labels(split, 0.2, seed=0)
    assert (len(few.train), len(more.train)) == (2, 4)
    assert set(few.train) < set(more.train)
    assert lost == set(split.train) - set(few.train)
    assert (few.validation, few.test) == (split.validation, split.test)
    assert len(without_labels(split, 0.001, seed=0)[0].train) == 1
    with pytest.raises(ForgettableSegError, match="whose labelled is not"):
        plan_from_dict({**PLAN, "regimes": [{"name": "none", "labelled": 0}]}, source="mine")
