"""Dice before and after a training: on how many cases, and how far apart these lie."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from ForgettableSegLib.evaluation.metrics import ClassResult
from ForgettableSegLib.jobs.comparison import MEAN_OF_SHARED, before_and_after


def results(**dice: list[float]) -> list[ClassResult]:
    """Results of cases c0, c1, ... by class."""
    rest = {each.name: 0.0 for each in fields(ClassResult) if each.name not in ("case", "name", "dice")}
    return [
        ClassResult(**{**rest, "case": f"c{number}", "name": name, "dice": value})
        for name, values in dice.items()
        for number, value in enumerate(values)
    ]


def test_the_spread_is_that_over_the_cases() -> None:
    held_out = before_and_after(results(a=[0.5, 0.7], b=[0.9, 0.9]), results(a=[0.6, 0.9], b=[0.9, 0.9]))
    assert held_out["cases"] == 2
    spread = held_out["spread"]
    assert spread["a"] == {
        "cases": 2,
        "before": pytest.approx(0.2 / math.sqrt(2)),
        "after": pytest.approx(0.3 / math.sqrt(2)),
        "change": pytest.approx(0.1 / math.sqrt(2)),
    }
    assert spread["b"]["change"] == 0
    assert spread["mean"]["change"] == pytest.approx(0.05 / math.sqrt(2)), "of the mean over the classes of each case"


def test_a_case_without_a_value_counts_in_no_spread_and_one_case_has_none() -> None:
    held_out = before_and_after(results(a=[0.5, math.nan]), results(a=[0.6, math.nan]))
    assert (held_out["cases"], held_out["spread"]["a"]) == (
        2, {"cases": 1, "before": None, "after": None, "change": None},
    )  # fmt: skip


def test_new_classes_have_no_change_and_the_shared_have_a_mean_of_their_own() -> None:
    held_out = before_and_after(results(a=[0.5, 0.7]), results(a=[0.6, 0.9], new=[0.1, 0.3]))
    spread = held_out["spread"]
    assert set(held_out["before"]) == {"a", MEAN_OF_SHARED}
    assert (spread["new"]["change"], spread["mean"]["change"]) == (None, None)
    assert spread[MEAN_OF_SHARED] == spread["a"]
    assert before_and_after([], results(a=[0.6, 0.9]))["spread"]["a"]["before"] is None


def test_results_survive_their_file() -> None:
    (result,) = results(a=[math.nan])
    again = ClassResult.from_dict(result.to_dict())
    assert math.isnan(again.dice)
    assert again.to_dict() == result.to_dict()
