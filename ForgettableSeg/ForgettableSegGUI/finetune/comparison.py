"""What a training shows while it runs and when it is done: curves, the sample bank, Dice before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..i18n import tr as _
from ..model_cards import diceText, heldOutDice

WORSE = 0.02
"""A class that loses more Dice than this gets a warning."""


@dataclass(frozen=True)
class Comparison:
    """Dice on held-out cases before and after a fine-tuning; None where it was not measured.

    ``keptStart`` tells that no iteration validated better than the old model, so that the new one has its weights.
    """

    rows: tuple[tuple[str, float | None, float | None], ...]
    keptStart: bool = False

    def isBetter(self) -> bool:
        """Whether the mean became better."""
        mean = next((row for row in self.rows if row[0] == "mean"), None)
        return mean is not None and None not in mean[1:] and mean[2] > mean[1]

    def worse(self) -> list[str]:
        """Names of the classes that lost."""
        return [
            name
            for name, before, after in self.rows
            if name != "mean" and before is not None and after is not None and before - after > WORSE
        ]


def comparisonFromValues(values: Mapping[str, Any]) -> Comparison:
    """Return the comparison that the library reports as {"before": {...}, "after": {...}, "kept_start"?}."""
    before, after = (heldOutDice(values.get(name) or {}) for name in ("before", "after"))
    names = [name for name in dict.fromkeys([*before, *after]) if name != "mean"]
    if "mean" in before or "mean" in after:
        names.append("mean")
    rows = tuple((name, before.get(name), after.get(name)) for name in names)
    return Comparison(rows, keptStart=bool(values.get("kept_start")))


def comparisonRows(comparison: Comparison) -> list[list[str]]:
    """Return the rows of the table of results."""
    rows = []
    for name, before, after in comparison.rows:
        change = "-" if before is None or after is None else f"{after - before:+.3f}"
        rows.append([_("mean") if name == "mean" else name, diceText(before), diceText(after), change])
    return rows


def comparisonSentence(comparison: Comparison, newName: str) -> str:
    """Return what is said above the table of results."""
    if comparison.keptStart:
        return _(
            "No step of the training was better than the old model on the validation cases, so {name} has its weights, "
            "unchanged."
        ).format(name=newName)
    if not comparison.rows:
        return _("The model {name} is trained. There were no held-out cases to compare on.").format(name=newName)
    measured = any(before is not None for _name, before, _after in comparison.rows)
    if not measured:
        text = _("The model {name} is trained. Dice on the held-out cases:").format(name=newName)
    elif comparison.isBetter():
        text = _("The model {name} is better than before on the held-out cases.").format(name=newName)
    else:
        text = _("The model {name} is not better than before on the held-out cases.").format(name=newName)
    worse = comparison.worse()
    if worse:
        text += " " + _("Warning: {names} became worse.").format(names=", ".join(worse))
    return text
