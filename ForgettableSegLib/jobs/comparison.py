"""Dice before and after a training, on the same cases and the classes that both models segment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.jobs.evaluate import mean_dice

if TYPE_CHECKING:
    from ForgettableSegLib.evaluation.metrics import ClassResult

MEAN_OF_SHARED = "mean of shared classes"
"""Stands for the mean where the new model segments other classes too."""


def before_and_after(start: Sequence[ClassResult], results: Sequence[ClassResult]) -> dict[str, Any]:
    """What a training changed.

    Args:
        start: of the start model, empty without one.
        results: of the new model.

    Returns:
        "before", "after" (Dice by class, under "mean", and under `MEAN_OF_SHARED` where the classes differ), "cases"
        (their number), and "spread": for each of the names how many cases have a value ("cases") and the sample
        standard deviations over them of Dice "before" and "after" and of its "change", None below two cases.
    """
    before, after = (mean_dice(list(each)) if each else {} for each in (start, results))
    known = {result.name for result in start}
    shared = [result for result in results if result.name in known]
    if shared and len(shared) < len(results):
        before[MEAN_OF_SHARED] = before.pop("mean", None)
        after[MEAN_OF_SHARED] = mean_dice(shared)["mean"]
    spread = {
        name: _spread(*(_dice_by_case(each, name, known) for each in (start if name in before else (), results)))
        for name in after
    }
    return {"before": before, "after": after, "cases": len({result.case for result in results}), "spread": spread}


def _dice_by_case(results: Sequence[ClassResult], name: str, known: set[str]) -> dict[str, float]:
    """Dice of a class by case, or the mean over the classes of each case; without cases that have no value."""
    from ForgettableSegLib.evaluation.summary import case_means

    if name == MEAN_OF_SHARED:
        results = [result for result in results if result.name in known]
    elif name != "mean":
        results = [result for result in results if result.name == name]
    return {case: dice for case, dice in case_means(results, "dice").items() if not math.isnan(dice)}


def _spread(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float | int | None]:
    from ForgettableSegLib.evaluation.summary import spread_of

    change = [after[case] - dice for case, dice in before.items() if case in after]
    values = {"before": list(before.values()), "after": list(after.values()), "change": change}
    return {"cases": len(after), **{part: spread_of(each).to_dict()["std"] for part, each in values.items()}}


def comparison_lines(held_out: Mapping[str, Any]) -> list[str]:
    """A sentence a class: "Dice of liver: before 0.905, after 0.902, -0.003 over 2 cases"."""
    cases = held_out.get("cases", 0)
    over = f" over {cases} case{'s' * (cases != 1)}" if cases else ""
    lines = []
    for name, after in held_out["after"].items():
        before = held_out["before"].get(name)
        if before is None or after is None:
            lines.append(f"Dice of {name}: {'not defined' if after is None else f'{after:.3f}'}{over}")
        else:
            change = f"before {before:.3f}, after {after:.3f}, {after - before:+.3f}"
            lines.append(f"Dice of {name}: {change}{over}")
    return lines
