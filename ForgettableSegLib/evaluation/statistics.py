"""Whether two sets of results on the same cases differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from ForgettableSegLib.evaluation.metrics import HIGHER_IS_BETTER, ClassResult
from ForgettableSegLib.evaluation.summary import MEAN_OF_CLASSES, case_means

COMPARED = ("dice", "sensitivity", "hd95_mm", "nsd")
"""Metrics that two result sets are compared by."""


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Second minus first result, paired by case.

    Args:
        name: of the class, or of the mean over classes.
        metric: what is compared.
        count: cases with a value in both.
        dropped: cases with a value in only one of the two; they take no part.
        first: mean of the first results over those cases.
        second: mean of the second results over those cases.
        difference: mean of second minus first.
        low: lower end of the bootstrap interval of the difference.
        high: upper end.
        p_value: of the Wilcoxon signed-rank test, two-sided, not corrected for the number of comparisons.
        better: cases in which the second result is better.
        worse: cases in which it is worse.
    """

    name: str
    metric: str
    count: int
    dropped: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    better: int
    worse: int

    def to_dict(self) -> dict[str, str | float | int | None]:
        """The fields as plain types, None for NaN."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in vars(self).items()}


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over cases.

    Args:
        values: one a case; NaN is left out.
        confidence: share of the resampled means within the interval.
        resamples: times the cases are drawn anew, with replacement.
        seed: of the draws, so that a report can be repeated.

    Returns:
        Lower and upper end; NaN below two values.
    """
    kept = np.asarray(values, dtype=float)
    kept = kept[~np.isnan(kept)]
    if len(kept) < 2:
        return math.nan, math.nan
    draws = np.random.default_rng(seed).integers(0, len(kept), size=(resamples, len(kept)))
    means = kept[draws].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-sided p of the Wilcoxon signed-rank test; 1 where nothing differs, NaN without cases."""
    if not len(differences):
        return math.nan
    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences, zero_method="wilcox").pvalue)


def paired_comparison(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    name: str,
    metric: str,
    seed: int = 0,
) -> PairedComparison:
    """Compare one metric of one class, paired by case.

    Args:
        first: value by case id (the baseline); NaN for no value.
        second: value by case id.
        name: of the class, for the result.
        metric: name of the metric, which tells whether more is better.
        seed: of the bootstrap.
    """
    a, b = ({case: value for case, value in values.items() if not math.isnan(value)} for values in (first, second))
    cases = sorted(a.keys() & b.keys())
    x, y = np.asarray([a[case] for case in cases]), np.asarray([b[case] for case in cases])
    # Rounding must not turn a tie into a win.
    difference = np.where(np.isclose(x, y, rtol=0, atol=1e-9), 0.0, y - x)
    gain = difference if HIGHER_IS_BETTER[metric] else -difference
    low, high = bootstrap_interval(difference, seed=seed)
    return PairedComparison(
        name=name,
        metric=metric,
        count=len(cases),
        dropped=len(a.keys() ^ b.keys()),
        first=float(x.mean()) if len(x) else math.nan,
        second=float(y.mean()) if len(y) else math.nan,
        difference=float(difference.mean()) if len(x) else math.nan,
        low=low,
        high=high,
        p_value=wilcoxon_p(difference),
        better=int((gain > 0).sum()),
        worse=int((gain < 0).sum()),
    )


def compare_results(
    first: Sequence[ClassResult], second: Sequence[ClassResult], *, seed: int = 0
) -> list[PairedComparison]:
    """Compare two result sets class by class, and by the mean over the classes of each case (last, if several).

    Args:
        first: the baseline.
        second: what is held against it.
        seed: of the bootstrap.
    """
    names = list(dict.fromkeys(result.name for result in [*first, *second]))
    comparisons = []
    for name in names:
        for metric in COMPARED:
            values = [
                {result.case: getattr(result, metric) for result in results if result.name == name}
                for results in (first, second)
            ]
            comparisons.append(paired_comparison(*values, name=name, metric=metric, seed=seed))
    if len(names) > 1:
        comparisons += [
            paired_comparison(
                case_means(first, metric), case_means(second, metric), name=MEAN_OF_CLASSES, metric=metric, seed=seed
            )
            for metric in COMPARED
        ]
    return comparisons
