"""Averages, paired comparisons and the files of a report."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wilcoxon

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.evaluation.metrics import METRICS, ClassResult, evaluate_case
from ForgettableSegLib.evaluation.report import CASES_FILE, JSON_FILE, SUMMARY_FILE, write_report
from ForgettableSegLib.evaluation.statistics import (
    bootstrap_interval,
    compare_results,
    paired_comparison,
    wilcoxon_p,
)
from ForgettableSegLib.evaluation.summary import MEAN_OF_CLASSES, summarise

NAN = math.nan


def result(case: str, name: str, dice: float, **changes: float | bool) -> ClassResult:
    values = {metric: dice for metric in METRICS} | {"predicted_ml": 1.0, "reference_ml": 1.0}
    return ClassResult(case=case, name=name, **{**values, "missed": False, "invented": False, **changes})


RESULTS = [
    result("a", "left", 0.9),
    result("a", "right", 0.5, hd95_mm=12.0, missed=True),
    result("b", "left", 0.7),
    result("b", "right", NAN, invented=True),
    result("c", "left", 0.8),
    result("c", "right", NAN),
]


def test_averages_leave_out_what_has_no_value_and_say_so() -> None:
    left, right, mean = summarise(RESULTS)
    assert left.metrics["dice"].mean == pytest.approx(0.8)
    assert left.metrics["dice"].std == pytest.approx(0.1)
    assert left.metrics["dice"].count == 3
    assert right.metrics["dice"].mean == 0.5
    assert right.metrics["dice"].count == 1
    assert math.isnan(right.metrics["dice"].std)
    assert (right.cases, right.missed, right.invented) == (3, 1, 1)
    assert mean.name == MEAN_OF_CLASSES
    assert mean.metrics["dice"].mean == pytest.approx((0.8 + 0.5) / 2)
    assert mean.metrics["dice"].median == pytest.approx(0.7)
    assert (mean.cases, mean.missed, mean.invented) == (3, 1, 1)


def test_one_class_has_no_mean_of_classes_and_no_value_stays_none() -> None:
    rows = summarise([result("a", "left", NAN)])
    assert [row.name for row in rows] == ["left"]
    assert rows[0].to_dict()["metrics"]["dice"] == {"count": 0, "mean": None, "std": None, "median": None}


def test_the_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    samples = generator.normal(2.0, 1.0, (200, 40))
    intervals = [bootstrap_interval(values, resamples=1000, seed=k) for k, values in enumerate(samples)]
    assert 0.88 <= np.mean([low <= 2.0 <= high for low, high in intervals]) <= 0.99


def test_the_bootstrap_repeats_narrows_and_needs_two_values() -> None:
    values = [0.1, 0.5, NAN, 0.9, 0.4]
    assert bootstrap_interval(values) == bootstrap_interval([0.1, 0.5, 0.9, 0.4])
    wide, narrow = bootstrap_interval(values), bootstrap_interval(values, confidence=0.5)
    assert wide[0] < narrow[0] < 0.475 < narrow[1] < wide[1]
    assert bootstrap_interval([1.0, 1.0]) == (1.0, 1.0)
    assert all(math.isnan(end) for end in bootstrap_interval([1.0]))


def test_a_comparison_pairs_by_case_and_counts_what_it_drops() -> None:
    first = {"a": 0.5, "b": 0.6, "c": 0.7, "d": NAN, "e": 0.1}
    second = {"c": 0.9, "b": 0.6, "a": 0.4, "d": 0.8, "f": 0.2}
    compared = paired_comparison(first, second, name="left", metric="dice")
    assert (compared.count, compared.dropped) == (3, 3)
    assert compared.first == pytest.approx(0.6)
    assert compared.second == pytest.approx(1.9 / 3)
    assert compared.difference == pytest.approx(0.1 / 3)
    assert compared.low <= compared.difference <= compared.high
    assert (compared.better, compared.worse) == (1, 1)


def test_a_smaller_distance_is_better() -> None:
    compared = paired_comparison({"a": 5.0, "b": 3.0}, {"a": 2.0, "b": 4.0}, name="left", metric="hd95_mm")
    assert compared.difference == -1
    assert (compared.better, compared.worse) == (1, 1)
    better = paired_comparison({"a": 5.0}, {"a": 2.0}, name="left", metric="hd95_mm")
    assert (better.better, better.worse) == (1, 0)


def test_the_test_is_scipys_and_defined_where_nothing_differs() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1, 30)
    assert wilcoxon_p(differences) == wilcoxon(differences).pvalue
    assert wilcoxon_p(np.zeros(5)) == 1
    assert math.isnan(wilcoxon_p(np.zeros(0)))
    nobody = paired_comparison({"a": 1.0}, {"b": 1.0}, name="left", metric="dice")
    assert (nobody.count, nobody.dropped) == (0, 2)
    assert math.isnan(nobody.difference)


def test_a_real_improvement_is_found_and_chance_is_not() -> None:
    generator = np.random.default_rng(2)
    baseline = [
        result(str(k), name, float(v)) for name in ("l", "r") for k, v in enumerate(generator.normal(0.8, 0.05, 30))
    ]
    improved = [result(r.case, r.name, r.dice + 0.02 + 0.01 * generator.standard_normal()) for r in baseline]
    other = [result(r.case, r.name, r.dice + 0.01 * generator.standard_normal()) for r in baseline]
    found = {(c.name, c.metric): c for c in compare_results(baseline, improved)}
    assert set(found) == {
        (n, m) for n in ("l", "r", MEAN_OF_CLASSES) for m in ("dice", "sensitivity", "hd95_mm", "nsd")
    }
    mean = found[MEAN_OF_CLASSES, "dice"]
    assert mean.low > 0.01
    assert mean.p_value < 1e-4
    assert mean.count == 30
    chance = {(c.name, c.metric): c for c in compare_results(baseline, other)}[MEAN_OF_CLASSES, "dice"]
    assert chance.low < 0 < chance.high
    same = compare_results(baseline, baseline)
    assert all((c.difference, c.p_value, c.better, c.worse) == (0, 1, 0, 0) for c in same)


def test_the_report_says_the_same_in_its_table_and_its_three_files(tmp_path: Path) -> None:
    comparison = compare_results(RESULTS, RESULTS)
    report = write_report(RESULTS, tmp_path / "new" / "folder", comparison=comparison, details={"model": "hippocampus"})
    assert [path.name for path in report.files] == [CASES_FILE, SUMMARY_FILE, JSON_FILE]
    with report.files[0].open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(RESULTS)
    assert rows[0]["case"] == "a"
    assert float(rows[0]["dice"]) == 0.9
    assert rows[3]["dice"] == ""
    assert rows[1]["missed"] == "True"
    with report.files[1].open(newline="", encoding="utf-8") as stream:
        summary = {row["class"]: row for row in csv.DictReader(stream)}
    assert float(summary["left"]["dice_mean"]) == pytest.approx(0.8)
    assert summary["right"]["dice_count"] == "1"
    assert summary["right"]["dice_std"] == ""
    content = json.loads(report.files[2].read_text(encoding="utf-8"))
    assert content["schema"] == 1
    assert content["convention"] == "ours"
    assert content["details"] == {"model": "hippocampus"}
    assert content["cases"][3]["dice"] is None
    assert content["summary"][0]["metrics"]["dice"]["mean"] == pytest.approx(0.8)
    assert len(content["comparison"]) == len(comparison)
    assert "0.800 ± 0.100" in report.table
    assert "0.500 [1]" in report.table
    lines = report.table.splitlines()
    assert len({len(line) for line in lines[:5]}) == 1, "columns are aligned"
    assert "Wilcoxon" in lines[-1]


def test_a_whole_evaluation_of_arrays_becomes_a_report(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    results = []
    for case in ("p1", "p2", "p3"):
        reference = generator.integers(0, 3, (4, 6, 5))
        prediction = np.where(generator.random(reference.shape) < 0.2, 0, reference)
        results += evaluate_case(
            prediction, reference, spacing=(2, 1, 1), classes=[("left", 1), ("right", 2)], case=case
        )
    table = write_report(results, tmp_path).table
    assert table.splitlines()[2].startswith("left")
    assert "±" in table


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ForgettableSegError, match="file") as refused:
        write_report(RESULTS, blocked)
    assert refused.value.code == ErrorCode.OUTPUT_UNWRITABLE
    assert blocked.read_text() == "in the way"
    assert list(tmp_path.iterdir()) == [blocked]
