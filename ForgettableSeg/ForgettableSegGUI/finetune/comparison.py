"""What a training has brought when it is done: Dice before and after, on how many cases, and how far they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from ..i18n import tr as _
from ..model_cards import diceText, heldOutDice

MIN_CASES = 5
"""Below it the cases are too few to tell better from worse."""

_MEANS = ("mean of shared classes", "mean")


@dataclass(frozen=True)
class Change:
    """Dice of a class, or the mean of the classes, before and after a training.

    Args:
        name: of the class; "mean" for the mean.
        before, after: means over the cases, None where not measured.
        cases: how many cases have a value.
        spread: standard deviation over the cases of the change, None below two cases.
    """

    name: str
    before: float | None
    after: float | None
    cases: int = 0
    spread: float | None = None

    @property
    def change(self) -> float | None:
        """What was won, None where it was not measured."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def verdict(self) -> int:
        """1 for better, -1 for worse, 0 where nobody can tell: fewer than five cases, or within two standard errors."""
        if self.change is None or self.spread is None or self.cases < MIN_CASES:
            return 0
        clear = abs(self.change) > 2 * self.spread / sqrt(self.cases)
        return 0 if not clear else 1 if self.change > 0 else -1

    def text(self) -> str:
        """The change with its spread."""
        if self.change is None:
            return "-"
        return f"{self.change:+.3f}" if self.spread is None else f"{self.change:+.3f} ± {self.spread:.3f}"


@dataclass(frozen=True)
class Comparison:
    """Dice on held-out cases before and after a fine-tuning.

    Args:
        rows: one a class, means last.
        cases: how many cases it was measured on.
        keptStart: whether no iteration validated better than the old model, so that the new one has its weights.
    """

    rows: tuple[Change, ...] = ()
    cases: int = 0
    keptStart: bool = False

    @property
    def mean(self) -> Change | None:
        """What the whole is judged by: the mean of the classes that both models know."""
        means = {row.name: row for row in self.rows if row.change is not None}
        return next((means[name] for name in _MEANS if name in means), None)

    def worse(self) -> list[str]:
        """Names of the classes that have clearly lost."""
        return [row.name for row in self.rows if row.name not in _MEANS and row.verdict < 0]


def comparisonFromValues(values: Mapping[str, Any]) -> Comparison:
    """Return the comparison that the library reports as {"before", "after", "cases", "spread", "kept_start"?}."""
    before, after = (heldOutDice(values.get(name) or {}) for name in ("before", "after"))
    spread = values.get("spread") or {}
    names = sorted(dict.fromkeys([*before, *after]), key=lambda name: (name in _MEANS, name == "mean"))
    rows = []
    for name in names:
        own = spread.get(name) or {}
        rows.append(Change(name, before.get(name), after.get(name), int(own.get("cases") or 0), own.get("change")))
    return Comparison(tuple(rows), int(values.get("cases") or 0), bool(values.get("kept_start")))


def comparisonRows(comparison: Comparison) -> list[list[str]]:
    """Return the rows of the table of results."""
    titles = {"mean": _("mean"), _MEANS[0]: _("mean of shared classes")}
    return [
        [titles.get(row.name, row.name), diceText(row.before), diceText(row.after), row.text()]
        for row in comparison.rows
    ]


def comparisonSentence(comparison: Comparison, newName: str) -> str:
    """Return what is said above the table of results."""
    if comparison.keptStart:
        return _(
            "No step of the training was better than the old model on the validation cases, so {name} has its weights, "
            "unchanged."
        ).format(name=newName)
    if not comparison.rows:
        return _("The model {name} is trained. There were no held-out cases to compare on.").format(name=newName)
    on = _("1 held-out case") if comparison.cases == 1 else _("{count} held-out cases").format(count=comparison.cases)
    if comparison.mean is None:
        return _("The model {name} is trained. Dice on {cases}:").format(name=newName, cases=on)
    if comparison.cases < MIN_CASES:
        text = _("Compared on {cases}: too few to tell whether {name} is better or worse than before.")
        return text.format(cases=on, name=newName)
    verdicts = {
        1: _("The model {name} is better than before: Dice changed by {change} on {cases}."),
        0: _("No clear difference between {name} and the model before: Dice changed by {change} on {cases}."),
        -1: _("The model {name} is worse than before: Dice changed by {change} on {cases}."),
    }
    mean = comparison.mean
    text = verdicts[mean.verdict].format(name=newName, change=mean.text(), cases=on)
    worse = comparison.worse()
    if worse:
        text += " " + _("Warning: {names} became worse.").format(names=", ".join(worse))
    return text
