"""Plots of an experiment: differences from the baseline, and curves of training. Needs matplotlib (extra `report`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ForgettableSegLib.evaluation.canvas import new_figure, png
from ForgettableSegLib.evaluation.report import TITLES
from ForgettableSegLib.experiments.plans import ExperimentPlan
from ForgettableSegLib.experiments.results import RunResult, VariantSummary, class_names, summarise_runs

# Differences of Dice and millimetres below this tell nothing.
_SMALLEST_AXIS = 0.005

Curve = tuple[Sequence[float], Sequence[float]]


def experiment_plots(
    plan: ExperimentPlan, runs: Sequence[RunResult], curves: Mapping[tuple[str, str, int], Mapping[str, Curve]]
) -> dict[str, bytes]:
    """PNG files by title.

    Args:
        plan: the plan.
        runs: the finished runs.
        curves: by (regime, variant, seed), name of the curve to (iterations, values).
    """
    summaries = summarise_runs(plan, runs)
    first = class_names(runs)[0]
    plots = {}
    for metric in plan.metrics:
        chosen = [each for each in summaries if each.metric == metric and each.name == first]
        if any(each.comparison is not None and each.comparison.count for each in chosen):
            plots[f"{TITLES[metric]} against {plan.baseline}"] = _differences(plan, chosen, metric)
    for name in ("main_loss", "validation_dice"):
        if any(name in found for found in curves.values()):
            plots[name.replace("_", " ").capitalize()] = _curves(plan, curves, name)
    return plots


def _differences(plan: ExperimentPlan, summaries: Sequence[VariantSummary], metric: str) -> bytes:
    """One line a variant: the difference with its interval, and a dot for each seed."""
    figure = new_figure(9, 1.2 + 0.42 * len(summaries))
    axes = figure.add_subplot()
    rows = [each for each in summaries if each.comparison is not None and each.comparison.count]
    for row, summary in enumerate(reversed(rows)):
        found = summary.comparison
        axes.plot([found.low, found.high], [row, row], color="tab:blue", linewidth=2)
        axes.plot(found.difference, row, "o", color="tab:blue")
        axes.plot(summary.seed_differences, [row + 0.2] * len(summary.seed_differences), ".", color="tab:orange")
    several = len(plan.regimes) > 1
    labels = [f"{each.variant} ({each.regime})" if several else each.variant for each in reversed(rows)]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.axvline(0, color="gray", linewidth=1)
    # Where nothing differs yet, the axis would be a millionth wide and labelled with a power of ten.
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -_SMALLEST_AXIS), max(high, _SMALLEST_AXIS))
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.set_xlabel(f"{TITLES[metric]}: difference from '{plan.baseline}' (line: 95 % over cases; dots: seeds)")
    return png(figure)


def _curves(plan: ExperimentPlan, curves: Mapping[tuple[str, str, int], Mapping[str, Curve]], name: str) -> bytes:
    """One panel a regime, one colour a variant, one line a seed."""
    figure = new_figure(9, 3.6 * len(plan.regimes))
    for number, regime in enumerate(plan.regimes, start=1):
        axes = figure.add_subplot(len(plan.regimes), 1, number)
        for index, variant in enumerate(plan.variants):
            own = [curve for key, curve in curves.items() if key[:2] == (regime.name, variant.name)]
            found = [curve[name] for curve in own if name in curve]
            for seed, (steps, values) in enumerate(found):
                label = variant.name if not seed else None
                axes.plot(steps, values, color=f"C{index % 10}", linewidth=1, alpha=0.8, label=label)
        axes.set_title(regime.name)
        axes.set_xlabel("iteration")
        axes.set_ylabel(name.replace("_", " "))
        if axes.lines:
            axes.legend(fontsize="small")
    return png(figure)


def smooth(values: Sequence[float], points: int = 100) -> Curve:
    """A long curve as the means of equally long parts of it: (middle of each part, mean)."""
    parts = [part for part in np.array_split(np.asarray(values, dtype=float), points) if len(part)]
    ends = np.cumsum([len(part) for part in parts])
    return [float(end - len(part) / 2) for end, part in zip(ends, parts, strict=True)], [float(p.mean()) for p in parts]
