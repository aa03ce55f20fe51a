"""Calibration to percentiles and aggregation over the dilated foreground: closed forms and invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ForgettableSegLib.inference.difficulty import (
    BINS,
    Calibration,
    HistogramBuilder,
    case_mean,
    class_regions,
    dilate,
    dilation_axes,
    slice_means,
)


def calibration(values: np.ndarray, channel: str = "confidence", level: str = "voxel") -> Calibration:
    builder = HistogramBuilder()
    builder.add(channel, level, values)
    return Calibration.from_tensors(builder.tensors())


def test_histograms_are_what_a_package_holds() -> None:
    builder = HistogramBuilder()
    builder.add("confidence", "voxel", np.array([[0.0, 0.5], [0.5, 1.0]]))
    builder.add("confidence", "voxel", np.array([0.5]))
    builder.add("score", "slice", np.array([4.0, 2.0]))
    tensors = builder.tensors()
    assert set(tensors) == {"calibration.confidence_voxel", "calibration.score_slice"}
    counts = tensors["calibration.confidence_voxel"]
    assert counts.dtype == torch.float32
    assert counts.shape == (BINS,)
    assert {i: int(n) for i, n in enumerate(counts) if n} == {0: 1, BINS // 2: 3, BINS - 1: 1}
    score = tensors["calibration.score_slice"]
    assert {i: int(n) for i, n in enumerate(score) if n} == {BINS // 2: 1, BINS - 1: 1}


def test_percentile_is_the_share_of_smaller_values() -> None:
    values = np.random.default_rng(1).beta(1, 6, 20000)
    calibrated = calibration(values)
    for quantile in (0.01, 0.05, 0.2, 0.4, 0.7):
        assert calibrated.percentile("confidence", "voxel", quantile) == pytest.approx(
            100 * (values < quantile).mean(), abs=0.5
        )


def test_nothing_at_all_is_percentile_0_and_more_than_ever_seen_is_100() -> None:
    calibrated = calibration(np.full(1000, 0.3))
    assert calibrated.percentile("confidence", "voxel", 0.0) == 0
    assert calibrated.percentile("confidence", "voxel", 0.9) == 100


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
def test_percentiles_never_fall_while_the_value_rises(seed: int, a: float, b: float) -> None:
    calibrated = calibration(np.random.default_rng(seed).random(50) ** 3)
    low, high = sorted((a, b))
    assert calibrated.percentile("confidence", "voxel", low) <= calibrated.percentile("confidence", "voxel", high)
    values = np.linspace(0, 1, 4001, dtype=np.float32)
    mapped = calibrated.apply_("confidence", values.copy())
    assert (np.diff(mapped) >= -1e-5).all()
    assert mapped.min() >= 0
    assert mapped.max() <= 100.001


def test_a_map_gets_the_percentiles_of_its_values_in_place() -> None:
    rng = np.random.default_rng(2)
    calibrated = calibration(rng.random(5000) * 4, "score")
    values = (rng.random((3, 40, 50)) * 4).astype(np.float32)
    values[0, 0, :3] = 0, 4, 4.1
    expected = [calibrated.percentile("score", "voxel", value) for value in values.ravel()]
    mapped = calibrated.apply_("score", values)
    assert mapped is values
    np.testing.assert_allclose(values.ravel(), expected, atol=1e-3)


def test_without_histograms_a_percentile_is_the_share_of_the_largest_value() -> None:
    for empty in ({}, {"calibration.confidence_voxel": torch.zeros(BINS), "network.weight": torch.ones(3)}):
        none = Calibration.from_tensors(empty)
        assert none.percentile("confidence", "slice", 0.25) == pytest.approx(25)
        assert none.percentile("score", "case", 1.0) == pytest.approx(25)
        np.testing.assert_allclose(none.apply_("confidence", np.array([0, 0.5, 1], np.float32)), [0, 50, 100])


def test_value_at_inverts_percentile() -> None:
    values = np.random.default_rng(3).random(10000) ** 2
    calibrated = calibration(values)
    for percentile in (5, 50, 95):
        value = calibrated.value_at("confidence", "voxel", percentile)
        assert calibrated.percentile("confidence", "voxel", value) == pytest.approx(percentile)
        assert (values > value).mean() == pytest.approx(1 - percentile / 100, abs=0.01)
    assert calibrated.value_at("confidence", "voxel", 100) == 1


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2), (0, 2)])
def test_dilation_reaches_two_voxels_along_the_given_axes_only(axes: tuple[int, ...]) -> None:
    mask = np.random.default_rng(4).random((9, 10, 11)) < 0.01
    mask[0, 0, 0] = True
    expected = np.zeros_like(mask)
    for voxel in np.argwhere(mask):
        box = tuple(
            slice(max(0, n - 2), n + 3) if axis in axes else slice(n, n + 1) for axis, n in enumerate(voxel.tolist())
        )
        expected[box] = True
    before = mask.copy()
    np.testing.assert_array_equal(dilate(mask, axes=axes), expected)
    np.testing.assert_array_equal(mask, before)


def test_2d_models_dilate_within_the_slice_and_3d_models_everywhere() -> None:
    assert dilation_axes(1, in_plane=True) == (0, 2)
    assert dilation_axes(1, in_plane=False) == (0, 1, 2)


def test_regions_of_classes_equal_those_of_the_whole_array() -> None:
    labels = np.zeros((6, 12, 14), dtype=np.uint16)
    labels[0:2, 0:3, 5:9] = 7
    labels[3, 6:8, 12:14] = 300
    regions = list(class_regions(labels, (7, 8, 300, 301), axes=(1, 2)))
    assert [each.value for each in regions] == [7, 300]
    for each in regions:
        for cut, whole in ((each.mask, labels == each.value), (each.region, dilate(labels == each.value, axes=(1, 2)))):
            pasted = np.zeros(labels.shape, dtype=bool)
            pasted[each.box] = cut
            np.testing.assert_array_equal(pasted, whole)


def test_means_over_slices_and_case() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    region = np.zeros(values.shape, dtype=bool)
    region[0, 0, :2] = region[1, 2, 3] = True
    np.testing.assert_allclose(slice_means(values, region, slice_axis=0), [0.5, 23])
    np.testing.assert_allclose(slice_means(values, region, slice_axis=1), [0.5, np.nan, 23])
    assert case_mean(values, region) == pytest.approx((0 + 1 + 23) / 3)
    nothing = np.zeros_like(region)
    assert case_mean(values, nothing) == pytest.approx(11.5), "over everything where there is no foreground"
