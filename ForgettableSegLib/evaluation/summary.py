"""Averages of an evaluation over its cases, without hiding how many values they are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ForgettableSegLib.evaluation.metrics import METRICS, ClassResult

MEAN_OF_CLASSES = "mean"
"""Name of the row that averages over the classes."""


@dataclass(frozen=True)
class Spread:
    """Distribution of a metric over cases.

    Args:
        count: cases with a value; the others (NaN) are in none of the numbers.
        mean: NaN if no case has a value, and so for the others.
        std: sample standard deviation (n - 1); NaN below two values.
        median: middle value.
    """

    count: int
    mean: float
    std: float
    median: float

    def to_dict(self) -> dict[str, float | int | None]:
        """The fields as plain types, None for NaN."""
        return {k: None if math.isnan(v) else v for k, v in vars(self).items()}


@dataclass(frozen=True)
class ClassSummary:
    """One class over all cases, or the mean of the classes.

    Args:
        name: of the class, or `MEAN_OF_CLASSES`.
        cases: cases evaluated.
        missed: cases whose reference holds the class and whose prediction does not.
        invented: cases whose prediction holds the class and whose reference does not.
        metrics: by name of the metric.
    """

    name: str
    cases: int
    missed: int
    invented: int
    metrics: dict[str, Spread]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain types."""
        return {**vars(self), "metrics": {name: spread.to_dict() for name, spread in self.metrics.items()}}


def spread_of(values: Sequence[float]) -> Spread:
    """Distribution of the values that are not NaN."""
    kept = np.asarray([v for v in values if not math.isnan(v)], dtype=float)
    if not len(kept):
        return Spread(0, math.nan, math.nan, math.nan)
    std = float(kept.std(ddof=1)) if len(kept) > 1 else math.nan
    return Spread(len(kept), float(kept.mean()), std, float(np.median(kept)))


def summarise(results: Sequence[ClassResult]) -> list[ClassSummary]:
    """Average each class over its cases, and the classes' means over the classes (last row, if there are several).

    In the last row every class weighs the same, however many cases have it; count, deviation and median are those of
    the cases' own means over their classes.

    Args:
        results: of any number of cases.
    """
    names = list(dict.fromkeys(result.name for result in results))
    by_class = [_class_summary(name, [result for result in results if result.name == name]) for name in names]
    if len(names) < 2:
        return by_class
    return [*by_class, _mean_summary(by_class, results)]


def _class_summary(name: str, results: list[ClassResult]) -> ClassSummary:
    metrics = {metric: spread_of([getattr(result, metric) for result in results]) for metric in METRICS}
    missed, invented = sum(result.missed for result in results), sum(result.invented for result in results)
    return ClassSummary(name, len(results), missed, invented, metrics)


def _mean_summary(by_class: list[ClassSummary], results: Sequence[ClassResult]) -> ClassSummary:
    metrics = {}
    for metric in METRICS:
        cases = spread_of(list(case_means(results, metric).values()))
        mean = spread_of([summary.metrics[metric].mean for summary in by_class]).mean
        metrics[metric] = Spread(cases.count, mean, cases.std, cases.median)
    return ClassSummary(
        MEAN_OF_CLASSES,
        len({result.case for result in results}),
        sum(summary.missed for summary in by_class),
        sum(summary.invented for summary in by_class),
        metrics,
    )


def case_means(results: Sequence[ClassResult], metric: str) -> dict[str, float]:
    """Mean of a metric over the classes of each case that have a value; NaN for a case without any."""
    values: dict[str, list[float]] = {}
    for result in results:
        values.setdefault(result.case, []).append(getattr(result, metric))
    return {case: spread_of(of_classes).mean for case, of_classes in values.items()}
