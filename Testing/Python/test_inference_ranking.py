"""The review: ranks, positions, volumes and shares against closed forms on an oblique grid."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.task import SegmentClass
from ForgettableSegLib.inference.difficulty import Calibration, HistogramBuilder
from ForgettableSegLib.inference.ranking import ReviewInput, Wanted, hardest_first, review, slices_csv, wanted_instead

CLASSES = (SegmentClass(name="front", value=4), SegmentClass(name="back", value=9), SegmentClass(name="none", value=2))
COS, SIN = np.cos(0.3), np.sin(0.3)


@pytest.fixture
def source() -> ReviewInput:
    labels = np.zeros((6, 20, 30), dtype=np.uint8)
    labels[1:4, 5:9, 5:10] = 4
    labels[3, 10:14, 20:25] = 9
    maps = {name: np.zeros(labels.shape, dtype=np.float32) for name in ("confidence", "prototype_ratio")}
    maps["confidence"][3, 5:8, 6:9] = 0.9  # the centre of this block is the hot spot of "front" in slice 3
    maps["confidence"][2, 0, 0] = 1.0  # outside of everything
    maps["confidence"][3, 10:14, 20:25] = 0.2
    maps["prototype_ratio"] += 0.5
    builder = HistogramBuilder()
    builder.add("confidence", "voxel", np.linspace(0, 0.5, 10001))
    builder.add("confidence", "slice", np.linspace(0, 0.2, 10001))
    builder.add("confidence", "case", np.linspace(0, 0.02, 10001))
    return ReviewInput(
        case_id="one",
        model="toy",
        maps=maps,
        labels=labels,
        classes=CLASSES,
        geometry=Geometry(
            size=(30, 20, 6),
            spacing=(0.5, 0.8, 3.0),
            origin=(-10.0, 20.0, 5.0),
            direction=(COS, -SIN, 0, SIN, COS, 0, 0, 0, -1),
        ),
        slice_axis=0,
        in_plane=True,
        calibration=Calibration.from_tensors(builder.tensors()),
    )


def test_slices_are_ranked_by_the_mean_over_the_dilated_class(source: ReviewInput) -> None:
    rows = review(source)["slices"]
    assert [(row["class"], row["slice"]) for row in rows] == [("front", 3), ("back", 3), ("front", 1), ("front", 2)]
    front, back = rows[:2]
    assert front["difficulty"] == pytest.approx(9 * 0.9 / (8 * 9), rel=1e-5)  # 4x5 voxels dilated to 8x9
    assert back["difficulty"] == pytest.approx(20 * 0.2 / 72, rel=1e-5)
    assert rows[2]["difficulty"] == 0
    assert front["area_mm2"] == pytest.approx(20 * 0.5 * 0.8)
    assert front["percentile"] == pytest.approx(100 * front["difficulty"] / 0.2, abs=1)
    assert rows[3]["percentile"] == 0


def test_the_position_is_the_hot_spot_in_patient_space(source: ReviewInput) -> None:
    x, y, z = 7 * 0.5, 6 * 0.8, 3 * 3.0
    expected = (-10 + COS * x - SIN * y, 20 + SIN * x + COS * y, 5 - z)
    assert review(source)["slices"][0]["position_lps"] == pytest.approx(expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_may_run_along_any_axis(source: ReviewInput, axis: int) -> None:
    order = [1, 2]
    order.insert(axis, 0)  # the slice axis of the fixture moves to `axis`
    moved = ReviewInput(
        case_id="one",
        model="toy",
        maps={name: np.ascontiguousarray(values.transpose(order)) for name, values in source.maps.items()},
        labels=np.ascontiguousarray(source.labels.transpose(order)),
        classes=CLASSES,
        geometry=Geometry(
            size=tuple(source.labels.transpose(order).shape[::-1]),
            spacing=(1, 1, 1),
            origin=(0, 0, 0),
            direction=(1, 0, 0, 0, 1, 0, 0, 0, 1),
        ),
        slice_axis=axis,
        in_plane=True,
        calibration=source.calibration,
    )
    for got, expected in zip(review(moved)["slices"], review(source)["slices"], strict=True):
        same = ("class", "slice", "percentile")
        assert [got[key] for key in same] == [expected[key] for key in same]
    hottest = review(moved)["slices"][0]["position_lps"]
    assert hottest == np.array([3, 6, 7])[order][::-1].tolist()


def test_classes_carry_volume_mean_and_share_of_hard_voxels(source: ReviewInput) -> None:
    front, back, none = review(source)["classes"]
    assert (front["name"], front["value"], front["voxels"]) == ("front", 4, 60)
    assert front["volume_ml"] == pytest.approx(60 * 0.5 * 0.8 * 3 / 1000)
    assert front["mean_difficulty"] == pytest.approx(9 * 0.9 / (3 * 72), rel=1e-5)
    assert front["share_above_95"] == pytest.approx(9 / (3 * 72))
    assert back["share_above_95"] == 0
    assert (none["voxels"], none["volume_ml"], none["mean_difficulty"]) == (0, 0, 0)


def test_the_case_is_the_mean_over_all_foreground(source: ReviewInput) -> None:
    case = review(source)["case_difficulty"]
    assert case["difficulty"] == pytest.approx((9 * 0.9 + 20 * 0.2) / (4 * 72), rel=1e-5)
    assert case["percentile"] == 100
    assert case["verdict"] == "unlike"


def test_a_case_without_foreground_ranks_its_whole_slices(source: ReviewInput) -> None:
    source.labels[:] = 0
    content = review(source)
    assert [row["slice"] for row in content["slices"][:3]] == [3, 2, 0]
    assert {row["class"] for row in content["slices"]} == {""}
    assert content["slices"][1]["difficulty"] == pytest.approx(1 / 600)
    assert content["case_difficulty"]["difficulty"] == pytest.approx((9 * 0.9 + 20 * 0.2 + 1) / 3600, rel=1e-5)


def test_an_audit_ranks_by_the_sum_of_the_terms(source: ReviewInput) -> None:
    maps = {name: np.zeros(source.labels.shape, dtype=np.float32) for name in ("T1", "T2", "T3", "T4", "score")}
    maps["T1"][1] = 1.0
    maps["score"][2] = 2.0
    content = review(ReviewInput(**{**vars(source), "maps": maps}))
    assert content["channels"] == ["T1", "T2", "T3", "T4", "score"]
    assert (content["slices"][0]["slice"], content["slices"][0]["difficulty"]) == (2, 2.0)
    assert content["slices"][0]["percentile"] == pytest.approx(50), "of the largest sum, 4, where nothing is calibrated"


def test_content_is_plain_json_and_csv_keeps_the_order(source: ReviewInput) -> None:
    first = review(source)
    assert json.loads(json.dumps(first)) == first
    assert first["schema"] == 1
    assert first["channels"] == ["confidence", "prototype_ratio"]
    harder = [{**row, "difficulty": row["difficulty"] * 2} for row in first["slices"]]
    second = {**first, "case": "two", "slices": harder}
    table = hardest_first([first, second])
    assert [row["case"] for row in table[:3]] == ["two", "one", "two"]
    rows = list(csv.DictReader(slices_csv([first, second]).splitlines()))
    assert [float(row["difficulty"]) for row in rows] == [row["difficulty"] for row in table]
    assert [float(rows[1][axis]) for axis in "xyz"] == pytest.approx(first["slices"][0]["position_lps"])


def test_a_case_is_judged_beside_whole_cases_that_were_held_out() -> None:
    """33 good cases, one of them hard: a twentieth of good cases is hard, and only what is far above all is unlike."""
    held_out = np.append(np.linspace(0.036, 0.048, 32), 0.069)
    builder = HistogramBuilder()
    builder.add("confidence", "case", held_out)
    builder.add("confidence", "class2", held_out / 2)
    calibration = Calibration.from_tensors(builder.tensors())
    verdicts = [calibration.verdict("confidence", "case", value) for value in held_out]
    assert verdicts.count("hard") <= 2
    assert set(verdicts) == {"usual", "hard"}
    assert {calibration.verdict("confidence", "case", value) for value in (0.099, 0.12, 0.9)} == {"unlike"}
    assert calibration.verdict("confidence", "class2", 0.069) == "unlike"
    assert calibration.verdict("confidence", "class1", 0.069) is None, "an older model has no histogram of classes"


def test_one_odd_class_makes_the_case_odd(source: ReviewInput) -> None:
    counts = {f"calibration.confidence_{level}": torch.zeros(512) for level in ("voxel", "slice", "case", "class1")}
    for histogram in counts.values():
        histogram[500] = 1
    counts["calibration.confidence_class1"] = torch.eye(512)[2]
    content = review(replace(source, calibration=Calibration.from_tensors(counts)))
    assert [row["verdict"] for row in content["classes"]] == ["unlike", None, None]
    assert content["case_difficulty"]["verdict"] == "unlike"


def test_the_class_that_a_model_wants_instead_is_named() -> None:
    reference = np.array([1] * 10 + [2] * 10 + [0] * 5)
    predicted = np.array([1] * 4 + [2] * 5 + [0] + [2] * 8 + [0] * 2 + [1] * 5)
    found = wanted_instead(reference, predicted, ["liver", "spleen"])
    assert found == [Wanted("liver", "spleen", 0.5), Wanted("spleen", "background", 0.2)]
    assert wanted_instead(reference, reference, ["liver", "spleen"]) == []
