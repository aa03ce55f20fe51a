"""Metrics against MONAI and medpy on random masks, and what becomes of absent classes in each convention."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.evaluation.metrics import ClassResult, evaluate_case

SPACING = (2.5, 0.8, 0.7)
CLASSES = (("one", 1), ("two", 5))
CONVENTIONS = ("ours", "monai", "medpy", "nnunet")


def label_map(seed: int, shape: tuple[int, ...] = (9, 14, 12)) -> np.ndarray:
    """Smooth random blobs of the labels 1 and 5, some of which touch the border."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    field /= field.std()
    return np.where(field > 0.9, 5, np.where(field < -0.7, 1, 0)).astype(np.int16)


def similar(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A reference and a prediction that agrees with most of it."""
    reference = label_map(seed)
    noise = gaussian_filter(np.random.default_rng(seed + 1000).standard_normal(reference.shape), 1)
    return np.where(noise > 0.3, label_map(seed + 500), reference), reference


def one_hot(labels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([labels == 0, labels == 1, labels == 5])[None].astype(np.float32))


def nothing() -> np.ndarray:
    return np.zeros((9, 14, 12), np.int16)


def results_of(prediction: np.ndarray, reference: np.ndarray, convention: str = "ours") -> list[ClassResult]:
    return evaluate_case(prediction, reference, spacing=SPACING, classes=CLASSES, convention=convention)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing", [SPACING, (1.0, 1.0, 1.0)])
def test_values_are_those_of_monai(seed: int, spacing: tuple[float, ...]) -> None:
    metrics = pytest.importorskip("monai.metrics")
    prediction, reference = similar(seed)
    p, y = one_hot(prediction), one_hot(reference)
    dice = metrics.compute_dice(p, y, include_background=False)[0]
    confusion = metrics.get_confusion_matrix(p, y, include_background=False)
    recall = metrics.compute_confusion_matrix_metric("sensitivity", confusion)[0]
    hd95 = metrics.compute_hausdorff_distance(p, y, percentile=95, spacing=spacing)[0]
    voxels = metrics.compute_hausdorff_distance(p, y, percentile=95)[0]
    # The same distances reach MONAI's comparison with the tolerance in another precision: keep off exact ties.
    nsd = metrics.compute_surface_dice(p, y, [1.01, 1.01], spacing=spacing)[0]
    for convention in ("monai", "ours"):
        results = evaluate_case(
            prediction, reference, spacing=spacing, classes=CLASSES, convention=convention, tolerance=1.01
        )
        for k, result in enumerate(results):
            assert result.dice == pytest.approx(float(dice[k]))
            assert result.sensitivity == pytest.approx(float(recall[k]))
            assert result.hd95_mm == pytest.approx(float(hd95[k]), rel=1e-5)
            assert result.hd95_voxels == pytest.approx(float(voxels[k]), rel=1e-5)
            assert result.nsd == pytest.approx(float(nsd[k]))


@pytest.mark.parametrize("seed", range(6))
def test_values_are_those_of_medpy(seed: int) -> None:
    binary = pytest.importorskip("medpy.metric.binary")
    prediction, reference = similar(seed)
    for result, (_, value) in zip(results_of(prediction, reference, "medpy"), CLASSES, strict=True):
        masks = prediction == value, reference == value
        assert result.dice == pytest.approx(binary.dc(*masks))
        assert result.sensitivity == pytest.approx(binary.recall(*masks))
        assert result.hd95_mm == pytest.approx(binary.hd95(*masks, voxelspacing=SPACING), rel=1e-5)
        assert result.hd95_voxels == pytest.approx(binary.hd95(*masks), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_values_are_those_of_nnunet(seed: int) -> None:
    prediction, reference = similar(seed)
    for result, (_, value) in zip(results_of(prediction, reference, "nnunet"), CLASSES, strict=True):
        tp = ((prediction == value) & (reference == value)).sum()
        wrong = ((prediction == value) ^ (reference == value)).sum()
        assert result.dice == pytest.approx(2 * tp / (2 * tp + wrong))
        assert math.isnan(result.hd95_mm)


def assert_same(value: float, expected: float) -> None:
    assert value == pytest.approx(expected, nan_ok=True)


def monai_or_nan(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Dice and HD95 of class 5 as MONAI gives them; its HD95 of a missed structure is NaN or inf."""
    metrics = pytest.importorskip("monai.metrics")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dice = float(metrics.compute_dice(one_hot(prediction), one_hot(reference), include_background=False)[0, 1])
        hd95 = float(metrics.compute_hausdorff_distance(one_hot(prediction), one_hot(reference), percentile=95)[0, 1])
    return dice, hd95 if math.isfinite(hd95) else math.nan


@pytest.mark.parametrize("case", ["missed", "invented", "absent"])
def test_absent_structures_follow_monai_and_medpy_in_their_conventions(case: str) -> None:
    binary = pytest.importorskip("medpy.metric.binary")
    full = label_map(3)
    prediction, reference = {"missed": (nothing(), full), "invented": (full, nothing())}.get(
        case, (nothing(), nothing())
    )
    monai = results_of(prediction, reference, "monai")[1]
    dice, hd95 = monai_or_nan(prediction, reference)
    assert_same(monai.dice, dice)
    assert_same(monai.hd95_mm, hd95)
    medpy = results_of(prediction, reference, "medpy")[1]
    with np.errstate(invalid="ignore"):
        dice, recall = (measure(prediction == 5, reference == 5) for measure in (binary.dc, binary.recall))
    # Where medpy divides 0 by 0 it depends on NumPy's version whether it notices.
    assert_same(medpy.dice, 1.0 if case == "absent" else dice)
    assert_same(medpy.sensitivity, recall if case == "missed" else 0.0)
    assert case != "absent" or dice == 1 or math.isnan(dice)
    assert case == "missed" or recall == 0 or math.isnan(recall)
    with pytest.raises(RuntimeError):
        binary.hd95(prediction == 5, reference == 5)
    assert math.isnan(medpy.hd95_mm)


def test_ours_punishes_a_missed_structure_in_every_metric() -> None:
    reference = label_map(3)
    result = results_of(nothing(), reference)[1]
    assert (result.dice, result.sensitivity, result.nsd) == (0, 0, 0)
    assert result.hd95_mm == pytest.approx(math.dist((0, 0, 0), (9 * 2.5, 14 * 0.8, 12 * 0.7)))
    assert result.hd95_voxels == pytest.approx(math.dist((0, 0, 0), (9, 14, 12)))
    assert result.missed
    assert not result.invented


def test_ours_reports_an_invented_structure_by_its_volume() -> None:
    prediction = label_map(3)
    result = results_of(prediction, nothing())[1]
    assert (result.dice, result.nsd) == (0, 0)
    assert math.isnan(result.sensitivity)
    assert math.isnan(result.hd95_mm)
    assert result.false_positive_ml == result.predicted_ml
    assert result.predicted_ml == pytest.approx((prediction == 5).sum() * math.prod(SPACING) / 1000)
    assert result.invented
    assert not result.missed


@pytest.mark.parametrize(("convention", "dice", "sensitivity"), [
    ("ours", math.nan, math.nan), ("monai", math.nan, math.nan), ("medpy", 1.0, 0.0), ("nnunet", math.nan, math.nan),
])  # fmt: skip
def test_a_class_in_neither_has_the_value_of_its_convention(convention: str, dice: float, sensitivity: float) -> None:
    result = results_of(nothing(), nothing(), convention)[0]
    assert_same(result.dice, dice)
    assert_same(result.sensitivity, sensitivity)
    assert math.isnan(result.hd95_mm)
    assert math.isnan(result.nsd)
    assert (result.missed, result.invented) == (False, False)
    assert result.to_dict()["hd95_mm"] is None


def test_a_shift_has_the_distance_of_the_shift_along_its_axis() -> None:
    reference = np.zeros((20, 20, 20), np.uint8)
    reference[5:12, 5:12, 5:12] = 1
    for axis, step in enumerate(SPACING):
        prediction = np.roll(reference, 2, axis)
        result = evaluate_case(prediction, reference, spacing=SPACING, classes=[("cube", 1)])[0]
        assert result.hd95_mm == pytest.approx(2 * step)
        assert result.hd95_voxels == pytest.approx(2)
        assert result.dice == result.sensitivity == pytest.approx(5 / 7)


def test_a_surface_exactly_at_the_tolerance_counts() -> None:
    reference = np.zeros((1, 30, 30), np.uint8)
    reference[0, 5:20, 5:20] = 1
    prediction = np.roll(reference, 1, 2)
    arguments = {"spacing": (3.0, 0.7, 0.7), "classes": [("square", 1)]}
    assert evaluate_case(prediction, reference, tolerance=0.7, **arguments)[0].nsd == 1
    assert evaluate_case(prediction, reference, tolerance=0.69, **arguments)[0].nsd < 1


def test_in_a_single_slice_the_surface_is_the_outline() -> None:
    """In three dimensions every voxel of the slice would be surface, and the distances would shrink."""
    reference = np.zeros((1, 40, 40), np.uint8)
    reference[0, 5:35, 5:35] = 1
    prediction = np.zeros_like(reference)
    prediction[0, 9:31, 9:31] = 1
    result = evaluate_case(prediction, reference, spacing=(9.0, 1.0, 1.0), classes=[("square", 1)])[0]
    assert result.hd95_mm == pytest.approx(np.hypot(4, 2), abs=1.5)
    plane = evaluate_case(prediction[0], reference[0], spacing=(1.0, 1.0), classes=[("square", 1)])[0]
    assert result.hd95_mm == plane.hd95_mm
    assert result.nsd == plane.nsd == 0


def test_a_region_is_the_union_of_its_classes() -> None:
    prediction, reference = similar(2)
    whole = evaluate_case(prediction, reference, spacing=SPACING, classes=[("whole", (1, 5))])[0]
    joined = evaluate_case(
        (prediction > 0).astype(int), (reference > 0).astype(int), spacing=SPACING, classes=[("whole", 1)]
    )[0]
    assert whole == joined


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1), convention=st.sampled_from(CONVENTIONS))
def test_values_stay_in_their_ranges_and_agreement_is_perfect_with_itself(
    seed: int, share: float, convention: str
) -> None:
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(1, 7, 3))
    prediction, reference = ((generator.random(shape) < share).astype(np.uint8) for _ in range(2))
    arguments = {"spacing": SPACING, "classes": [("a", 1)], "convention": convention}
    result = evaluate_case(prediction, reference, **arguments)[0]
    for value in (result.dice, result.sensitivity, result.nsd):
        assert math.isnan(value) or 0 <= value <= 1
    for value, step in ((result.hd95_mm, SPACING), (result.hd95_voxels, (1, 1, 1))):
        assert math.isnan(value) or 0 <= value <= np.linalg.norm(np.multiply(shape, step)) + 1e-5
    same = evaluate_case(reference, reference, **arguments)[0]
    if reference.any():
        assert (same.dice, same.sensitivity, same.nsd, same.false_positive_ml) == (1, 1, 1, 0)
        assert same.hd95_mm == 0 or convention == "nnunet"


def test_different_grids_and_unknown_conventions_are_refused_by_name() -> None:
    with pytest.raises(ForgettableSegError, match="'p7' has the grid") as refused:
        evaluate_case(nothing(), nothing()[1:], spacing=SPACING, classes=CLASSES, case="p7")
    assert refused.value.code == ErrorCode.CASE_INVALID
    with pytest.raises(ForgettableSegError, match="'theirs' is unknown") as unknown:
        results_of(nothing(), nothing(), "theirs")
    assert unknown.value.code == ErrorCode.SETTING_INVALID
