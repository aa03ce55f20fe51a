"""What the runs of an experiment come to: means and deviations over seeds, and paired comparisons with the baseline."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ForgettableSegLib.evaluation.metrics import ClassResult
from ForgettableSegLib.evaluation.statistics import PairedComparison, paired_comparison
from ForgettableSegLib.evaluation.summary import MEAN_OF_CLASSES, Spread, case_means, spread_of
from ForgettableSegLib.experiments.plans import ExperimentPlan


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run.

    Args:
        regime, variant: their names.
        seed: of the run.
        results: on the held-out cases.
        facts: about the run, as its result file keeps them (iterations, seconds, ...).
    """

    regime: str
    variant: str
    seed: int
    results: tuple[ClassResult, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class VariantSummary:
    """One metric of one class for one variant in one regime.

    Args:
        regime, variant, metric: which.
        name: of the class, or `MEAN_OF_CLASSES`.
        seeds: spread over the seeds of the mean over cases.
        comparison: with the baseline, paired by case after averaging each case over the seeds that both have; None for
            the baseline itself and where there is nothing to compare.
        seed_differences: mean difference from the baseline for each of those seeds.
    """

    regime: str
    variant: str
    metric: str
    name: str
    seeds: Spread
    comparison: PairedComparison | None
    seed_differences: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain types."""
        comparison = None if self.comparison is None else self.comparison.to_dict()
        differences = [None if math.isnan(value) else value for value in self.seed_differences]
        return {
            **vars(self),
            "seeds": self.seeds.to_dict(),
            "comparison": comparison,
            "seed_differences": differences,
        }


def class_names(runs: Sequence[RunResult]) -> list[str]:
    """Classes of the results, and the mean over them first where there are several."""
    names = list(dict.fromkeys(result.name for run in runs for result in run.results))
    return [MEAN_OF_CLASSES, *names] if len(names) > 1 else names


def summarise_runs(plan: ExperimentPlan, runs: Sequence[RunResult]) -> list[VariantSummary]:
    """Every regime, metric, class and variant of a plan that has a run.

    Args:
        plan: the order of everything, and the baseline.
        runs: those that are finished.
    """
    summaries = []
    for regime in plan.regimes:
        for metric in plan.metrics:
            for name in class_names(runs):
                by_variant = {
                    variant.name: {
                        run.seed: _values(run.results, name, metric)
                        for run in runs
                        if (run.regime, run.variant) == (regime.name, variant.name)
                    }
                    for variant in plan.variants
                }
                baseline = by_variant[plan.baseline]
                summaries += [
                    _summary(regime.name, variant, metric, name, seeds, None if variant == plan.baseline else baseline)
                    for variant, seeds in by_variant.items()
                    if seeds
                ]
    return summaries


def _values(results: Sequence[ClassResult], name: str, metric: str) -> dict[str, float]:
    """Value of each case; NaN for none."""
    if name == MEAN_OF_CLASSES and name not in {result.name for result in results}:
        return case_means(results, metric)
    return {result.case: getattr(result, metric) for result in results if result.name == name}


def _summary(
    regime: str,
    variant: str,
    metric: str,
    name: str,
    seeds: Mapping[int, Mapping[str, float]],
    baseline: Mapping[int, Mapping[str, float]] | None,
) -> VariantSummary:
    means = [spread_of(list(values.values())).mean for values in seeds.values()]
    comparison, differences = None, ()
    common = sorted(seeds.keys() & baseline.keys()) if baseline else []
    if common:
        first, second = (over_seeds([found[seed] for seed in common]) for found in (baseline, seeds))
        comparison = paired_comparison(first, second, name=name, metric=metric)
        differences = tuple(_difference(baseline[seed], seeds[seed]) for seed in common)
    return VariantSummary(
        regime=regime,
        variant=variant,
        metric=metric,
        name=name,
        seeds=spread_of(means),
        comparison=comparison,
        seed_differences=differences,
    )


def over_seeds(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over the seeds of each case that all of them have a value for; NaN for the others."""
    cases = dict.fromkeys(case for of_seed in values for case in of_seed)
    return {case: sum(of_seed.get(case, math.nan) for of_seed in values) / len(values) for case in cases}


def _difference(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    return spread_of([second[case] - first[case] for case in first.keys() & second.keys()]).mean


def results_csv(runs: Sequence[RunResult]) -> str:
    """One line a run, case and class; empty where there is no value."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["regime", "variant", "seed", *(each.name for each in fields(ClassResult))])
    for run in runs:
        writer.writerows([run.regime, run.variant, run.seed, *result.to_dict().values()] for result in run.results)
    return text.getvalue()


def comparison_csv(summaries: Sequence[VariantSummary]) -> str:
    """One line a regime, metric, class and variant: spread over the seeds, and the comparison with the baseline."""
    text = io.StringIO(newline="")
    spread, comparison = [each.name for each in fields(Spread)], [each.name for each in fields(PairedComparison)][2:]
    keys = ("regime", "metric", "name", "variant")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys[:2], "class", keys[3], *(f"seeds_{name}" for name in spread), *comparison])
    for summary in summaries:
        found = {} if summary.comparison is None else summary.comparison.to_dict()
        values = [*summary.seeds.to_dict().values(), *(found.get(name) for name in comparison)]
        writer.writerow([*(getattr(summary, key) for key in keys), *("" if v is None else v for v in values)])
    return text.getvalue()
