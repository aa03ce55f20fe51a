"""Dice before and after a training, on the same cases and the classes that both models segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.jobs.evaluate import mean_dice

if TYPE_CHECKING:
    from ForgettableSegLib.evaluation.metrics import ClassResult

MEAN_OF_SHARED = "mean of shared classes"
"""Stands for the mean where the new model segments other classes too."""


def before_and_after(before: Mapping[str, Any], results: Sequence[ClassResult]) -> dict[str, Any]:
    """What a training changed.

    Args:
        before: mean Dice of the start model by class and under "mean", empty without one.
        results: of the new model.

    Returns:
        "before", "after" (Dice by class, under "mean", and under `MEAN_OF_SHARED` where the classes differ), "cases".
    """
    after = mean_dice(list(results)) if results else {}
    before = dict(before)
    shared = [result for result in results if result.name in before]
    if shared and len(shared) < len(results):
        before[MEAN_OF_SHARED] = before.pop("mean", None)
        after[MEAN_OF_SHARED] = mean_dice(shared)["mean"]
    return {"before": before, "after": after, "cases": len({result.case for result in results})}


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
