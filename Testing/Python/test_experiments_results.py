"""Statistics and report of an experiment, against scipy and made-up results with known answers."""

from __future__ import annotations

import csv
import html.parser
import io
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap, wilcoxon

from ForgettableSegLib.evaluation.metrics import ClassResult
from ForgettableSegLib.experiments.plans import ExperimentPlan, Variant
from ForgettableSegLib.experiments.plots import experiment_plots, smooth
from ForgettableSegLib.experiments.report import write_experiment
from ForgettableSegLib.experiments.results import RunResult, comparison_csv, over_seeds, results_csv, summarise_runs

CASES, SEEDS = 20, 3
PLAN = ExperimentPlan(
    name="mine",
    title="Mine & <yours>",
    settings={"iterations": 10},
    variants=(Variant(name="plain"), Variant(name="better | so")),
    baseline="plain",
    seeds=tuple(range(SEEDS)),
    metrics=("dice", "hd95_mm"),
)
DETAILS = {"cases": {"train": 4, "test": 20}, "missing": [], "failed": [], "device": "cpu", "seconds": 1.0}


def class_result(case: int, name: str, dice: float, hd95: float) -> ClassResult:
    numbers = dict.fromkeys(
        ("sensitivity", "hd95_voxels", "nsd", "false_positive_ml", "predicted_ml", "reference_ml"), 0.5
    )
    return ClassResult(case=f"c{case}", name=name, dice=dice, hd95_mm=hd95, missed=False, invented=False, **numbers)


@pytest.fixture(scope="module")
def dice() -> dict[str, np.ndarray]:
    """Dice by variant, (seeds, cases, two classes)."""
    generator = np.random.default_rng(0)
    plain = generator.uniform(0.6, 0.9, (SEEDS, CASES, 2))
    return {"plain": plain, "better | so": plain + generator.normal(0.02, 0.03, plain.shape)}


@pytest.fixture(scope="module")
def runs(dice: dict[str, np.ndarray]) -> list[RunResult]:
    """A run of each variant and seed."""
    return [
        RunResult(
            regime="all cases",
            variant=variant,
            seed=seed,
            results=tuple(
                class_result(case, name, float(values[seed, case, index]), 5 - float(values[seed, case, index]))
                for case in range(CASES)
                for index, name in enumerate(("one", "two"))
            ),
            facts={"iterations": 10, "seconds": 1.5, "device": "cpu"},
        )
        for variant, values in dice.items()
        for seed in range(SEEDS)
    ]


def test_means_deviations_and_p_are_those_of_numpy_and_scipy(
    dice: dict[str, np.ndarray], runs: list[RunResult]
) -> None:
    found = {(each.variant, each.metric, each.name): each for each in summarise_runs(PLAN, runs)}
    assert len(found) == 2 * 2 * 3
    better, plain = dice["better | so"], dice["plain"]
    summary = found["better | so", "dice", "mean"]
    assert summary.seeds.mean == pytest.approx(better.mean())
    assert summary.seeds.std == pytest.approx(better.mean((1, 2)).std(ddof=1))
    difference = (better - plain).mean(axis=(0, 2))
    assert summary.comparison.difference == pytest.approx(difference.mean())
    assert summary.comparison.p_value == pytest.approx(wilcoxon(difference).pvalue)
    assert (summary.comparison.better, summary.comparison.count) == ((difference > 0).sum(), CASES)
    interval = bootstrap((difference,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    assert (summary.comparison.low, summary.comparison.high) == pytest.approx(tuple(interval), abs=1e-3)
    assert summary.seed_differences == pytest.approx(tuple((better - plain).mean((1, 2))))
    one = found["better | so", "dice", "one"]
    assert one.comparison.p_value == pytest.approx(wilcoxon((better - plain)[..., 0].mean(0)).pvalue)
    assert found["plain", "dice", "mean"].comparison is None


def test_a_smaller_distance_is_better(runs: list[RunResult]) -> None:
    found = {(each.variant, each.metric, each.name): each for each in summarise_runs(PLAN, runs)}
    by_dice, by_distance = (found["better | so", metric, "mean"].comparison for metric in ("dice", "hd95_mm"))
    assert by_distance.difference == pytest.approx(-by_dice.difference)
    assert (by_distance.better, by_distance.worse) == (by_dice.better, by_dice.worse)


def test_only_seeds_that_both_have_are_compared(dice: dict[str, np.ndarray], runs: list[RunResult]) -> None:
    fewer = [run for run in runs if run.variant != "plain" or run.seed != 1]
    summary = next(each for each in summarise_runs(PLAN, fewer) if each.variant != "plain" and each.name == "mean")
    difference = (dice["better | so"] - dice["plain"])[[0, 2]].mean(axis=(0, 2))
    assert summary.seeds.count == SEEDS
    assert len(summary.seed_differences) == 2
    assert summary.comparison.difference == pytest.approx(difference.mean())


def test_a_case_without_a_value_for_a_seed_has_none() -> None:
    found = over_seeds([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": math.nan}])
    assert found["a"] == 2
    assert math.isnan(found["b"])


def test_nothing_is_compared_without_the_baseline(runs: list[RunResult]) -> None:
    summaries = summarise_runs(PLAN, [run for run in runs if run.variant != "plain"])
    assert summaries
    assert all(each.comparison is None for each in summaries)


def test_the_results_file_has_a_line_a_run_case_and_class(runs: list[RunResult]) -> None:
    rows = list(csv.DictReader(io.StringIO(results_csv(runs))))
    assert len(rows) == 2 * SEEDS * CASES * 2
    assert float(rows[0]["dice"]) == runs[0].results[0].dice


class Tags(html.parser.HTMLParser):
    """Counts the tags, and keeps the texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count."""
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        """Keep."""
        self.texts.append(data)


def test_the_report_renders(tmp_path: Path, runs: list[RunResult]) -> None:
    curves = {("all cases", run.variant, run.seed): {"main_loss": smooth(range(30))} for run in runs}
    plots = experiment_plots(PLAN, runs, curves)
    assert len(plots) == 3
    assert all(image.startswith(b"\x89PNG") for image in plots.values())
    table, files = write_experiment(PLAN, runs, tmp_path / "mine", details=DETAILS, plots=plots)
    assert all(path.stat().st_size for path in files)
    assert "better | so" in table
    markdown = (tmp_path / "mine" / "report.md").read_text(encoding="utf-8")
    assert "10 iterations" in markdown
    assert "4 train, 20 test" in markdown
    widths = [line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith("| better")]
    assert widths
    assert set(widths[:4]) == {9}
    assert all((tmp_path / "mine" / name).is_file() for name in markdown.split("](")[1].split(")")[:1])
    page = Tags()
    page.feed((tmp_path / "mine" / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("img") == len(plots)
    assert page.tags.count("table") == 2 + 2 + 2  # metrics of the mean, Dice of each class, runs and settings
    assert "yours" not in page.tags
    assert "Mine & <yours>" in page.texts


def test_curves_are_smoothed_by_parts() -> None:
    steps, values = smooth([0, 2, 4, 6], points=2)
    assert (steps, values) == ([1, 3], [1, 5])
    assert smooth([1.0], points=5) == ([0.5], [1.0])


def test_the_comparison_is_a_table_too(runs: list[RunResult]) -> None:
    rows = list(csv.DictReader(io.StringIO(comparison_csv(summarise_runs(PLAN, runs)))))
    assert len(rows) == 2 * 2 * 3
    (better,) = (r for r in rows if (r["variant"], r["metric"], r["class"]) == ("better | so", "dice", "mean"))
    (plain,) = (r for r in rows if (r["variant"], r["metric"], r["class"]) == ("plain", "dice", "mean"))
    assert float(better["second"]) - float(better["first"]) == pytest.approx(float(better["difference"]))
    assert float(better["low"]) < float(better["difference"]) < float(better["high"])
    assert float(better["seeds_mean"]) > float(plain["seeds_mean"])
    assert plain["difference"] == plain["low"] == ""
