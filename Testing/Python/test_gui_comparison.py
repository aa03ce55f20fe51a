"""What is said of Dice before and after a fine-tuning."""

from __future__ import annotations

import pytest
from ForgettableSegGUI.finetune import comparison


def held_out(cases: int, **dice: tuple[float, float, float | None]) -> comparison.Comparison:
    """What the library reports: Dice before, Dice after and the spread of the change by class."""
    before, after = ({name: values[part] for name, values in dice.items()} for part in (0, 1))
    spread = {name: {"cases": cases, "change": values[2]} for name, values in dice.items()}
    values = {"before": before, "after": after, "cases": cases, "spread": spread}
    return comparison.comparisonFromValues(values)


def test_dice_before_and_after_side_by_side_with_spread_and_a_warning() -> None:
    measured = held_out(6, a=(0.8, 0.9, 0.01), b=(0.7, 0.6, 0.02), mean=(0.75, 0.85, 0.015))
    assert comparison.comparisonRows(measured) == [
        ["a", "0.800", "0.900", "+0.100 ± 0.010"], ["b", "0.700", "0.600", "-0.100 ± 0.020"],
        ["mean", "0.750", "0.850", "+0.100 ± 0.015"],
    ]  # fmt: skip
    assert comparison.comparisonSentence(measured, "new") == (
        "The model new is better than before: Dice changed by +0.100 ± 0.015 on 6 held-out cases. "
        "Warning: b became worse."
    )


@pytest.mark.parametrize(("cases", "text"), [(1, "1 held-out case"), (4, "4 held-out cases")])
def test_fewer_than_five_cases_tell_neither_better_nor_worse(cases: int, text: str) -> None:
    measured = held_out(cases, a=(0.5, 0.9, 0.01 if cases > 1 else None), mean=(0.5, 0.9, 0.01 if cases > 1 else None))
    said = comparison.comparisonSentence(measured, "new")
    assert said == f"Compared on {text}: too few to tell whether new is better or worse than before."
    assert measured.mean.verdict == 0


@pytest.mark.parametrize(
    ("after", "spread", "words"),
    [(0.9, 0.2, "is better"), (0.82, 0.05, "No clear difference"), (0.6, 0.1, "is worse"), (0.8, 0.0, "No clear")],
)
def test_a_difference_within_the_spread_is_none(after: float, spread: float, words: str) -> None:
    measured = held_out(25, a=(0.8, after, spread), mean=(0.8, after, spread))
    assert words in comparison.comparisonSentence(measured, "new")


def test_classes_that_both_models_know_decide_where_there_are_new_ones() -> None:
    values = {
        "before": {"a": 0.5, "mean of shared classes": 0.5},
        "after": {"a": 0.7, "new": 0.1, "mean": 0.4, "mean of shared classes": 0.7},
        "cases": 5,
        "spread": {"mean of shared classes": {"cases": 5, "change": 0.01}},
    }
    measured = comparison.comparisonFromValues(values)
    assert [row[0] for row in comparison.comparisonRows(measured)] == ["a", "new", "mean of shared classes", "mean"]
    assert measured.mean.verdict == 1


def test_a_first_model_has_nothing_to_compare_with() -> None:
    measured = comparison.comparisonFromValues({"before": {}, "after": {"a": 0.9, "mean": None}, "cases": 2})
    assert comparison.comparisonRows(measured) == [["a", "-", "0.900", "-"]]
    assert comparison.comparisonSentence(measured, "new") == "The model new is trained. Dice on 2 held-out cases:"
    assert "no held-out cases" in comparison.comparisonSentence(comparison.comparisonFromValues({}), "new")


def test_a_start_that_was_kept_is_said() -> None:
    measured = comparison.comparisonFromValues(
        {"before": {"a": 0.9}, "after": {"a": 0.9}, "cases": 6, "kept_start": True}
    )
    assert "new has its weights, unchanged" in comparison.comparisonSentence(measured, "new")
