"""Geometry and prepared grids: exact for oblique, flipped, anisotropic and single-slice volumes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from case_volumes import AXIAL, grid, noise, rotation
from hypothesis import given, settings
from hypothesis import strategies as st

from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.grid import PreparedGrid

KEEP = (None, None, None)
steps = st.floats(0.3, 8.0)
geometries = st.builds(
    lambda shape, spacing, seed: grid(shape, spacing, (3.0, -40.0, 7.5), rotation(seed)),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(steps, steps, steps),
    st.integers(0, 200),
)


def as_image(volume: np.ndarray, geometry: Geometry) -> sitk.Image:
    image = sitk.GetImageFromArray(volume)
    geometry.apply_to(image)
    return image


@given(geometries)
def test_geometry_survives_images_and_json_bit_for_bit(geometry: Geometry):
    assert Geometry.from_image(geometry.reference_image()) == geometry
    assert Geometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry


@given(geometries)
def test_index_to_physical_agrees_with_simpleitk(geometry: Geometry):
    image = geometry.reference_image()
    index = [0.5 * (n - 1) for n in geometry.size]
    expected = image.TransformContinuousIndexToPhysicalPoint(index)
    np.testing.assert_allclose(geometry.index_to_physical(index), expected, atol=1e-9)
    np.testing.assert_allclose(geometry.index_to_physical([[index]])[0, 0], expected, atol=1e-9)


def test_voxel_volume_and_shape():
    geometry = grid((2, 3, 4), (0.5, 2.0, 3.0))
    assert geometry.voxel_volume == 3.0
    assert geometry.shape == (2, 3, 4)
    assert geometry.size == (4, 3, 2)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"origin": (0.01, 0.0, 0.0)}, True),
        ({"origin": (0.2, 0.0, 0.0)}, False),
        ({"spacing": (1.00001, 1.0, 1.0)}, True),
        ({"spacing": (1.1, 1.0, 1.0)}, False),
        ({"size": (100, 100, 99)}, False),
        ({"direction": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)}, False),
    ],
)
def test_same_grid_forgives_rounding_only(change: dict, same: bool):
    geometry = grid((100, 100, 100))
    other = replace(geometry, **change)
    assert geometry.is_same_grid(other) is same
    assert other.is_same_grid(geometry) is same


def test_same_grid_of_a_single_voxel_compares_spacing():
    assert not grid((1, 1, 1)).is_same_grid(grid((1, 1, 1), (2.0, 1.0, 1.0)))


@given(geometries)
def test_orientation_is_that_of_simpleitk_and_comes_back_exactly(geometry: Geometry):
    volume = noise(geometry.shape)
    plan = PreparedGrid.plan(geometry, KEEP, 0)
    oriented = sitk.DICOMOrient(as_image(volume, geometry), "LPS")
    assert not plan.is_resampled
    np.testing.assert_array_equal(plan.to_prepared(volume), sitk.GetArrayFromImage(oriented))
    assert plan.spacing == oriented.GetSpacing()[::-1]
    np.testing.assert_array_equal(plan.to_native(plan.to_prepared(volume)), volume)


@given(geometries, st.integers(0, 2))
def test_slice_axis_comes_first(geometry: Geometry, slice_axis: int):
    volume = noise(geometry.shape)
    axial = PreparedGrid.plan(geometry, KEEP, 0)
    other = PreparedGrid.plan(geometry, KEEP, slice_axis)
    np.testing.assert_array_equal(other.to_prepared(volume), np.moveaxis(axial.to_prepared(volume), slice_axis, 0))
    np.testing.assert_array_equal(other.to_native(other.to_prepared(volume)), volume)


@given(geometries, st.tuples(steps, steps, steps), st.integers(0, 2))
def test_resampled_grid_keeps_extent_and_json(geometry: Geometry, spacing: tuple, slice_axis: int):
    plan = PreparedGrid.plan(geometry, spacing, slice_axis)
    native_spacing = geometry.spacing[::-1]
    for axis, count, step in zip(plan.axes, plan.shape, plan.spacing, strict=True):
        assert count * step == pytest.approx(geometry.shape[axis] * native_spacing[axis])
    assert PreparedGrid.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@settings(max_examples=40)
@given(geometries, st.tuples(steps, steps, steps), st.integers(0, 2))
def test_resampling_agrees_with_simpleitk_in_patient_space(geometry: Geometry, spacing: tuple, slice_axis: int):
    """Prepared voxels hold what the native volume holds at their position, and the way back fits the native grid."""
    volume = noise(geometry.shape)
    plan = PreparedGrid.plan(geometry, spacing, slice_axis)
    prepared = plan.to_prepared(volume)
    assert prepared.shape == plan.shape
    image = as_image(volume, geometry)
    for index in np.ndindex(*np.minimum(plan.shape, 3)):
        position = plan.index_to_physical(index)
        inside = np.array(image.TransformPhysicalPointToContinuousIndex(position))
        clamped = np.clip(inside, 0, np.array(geometry.size) - 1)
        assert np.abs(inside - clamped).max() <= 0.5 + 1e-6
        expected = trilinear(volume, clamped[::-1])
        assert prepared[index] == pytest.approx(expected, rel=1e-3)
    assert plan.to_native(prepared).shape == geometry.shape


@settings(max_examples=60)
@given(geometries, st.tuples(steps, steps, steps), st.integers(0, 2), st.integers(0, 2**16))
def test_a_part_comes_back_as_it_does_with_the_whole(geometry: Geometry, spacing: tuple, slice_axis: int, seed: int):
    plan = PreparedGrid.plan(geometry, spacing, slice_axis)
    draw = np.random.default_rng(seed)
    ends = [np.sort(draw.integers(0, count + 1, 2)) for count in plan.shape]
    box = tuple(slice(min(low, high - 1), high) if high else slice(0, 1) for low, high in np.array(ends).tolist())
    volume = np.zeros(plan.shape, dtype=np.float32)
    volume[box] = noise(volume[box].shape)
    part, where = plan.to_native_around(volume, box)
    pasted = np.zeros(geometry.shape, dtype=np.float32)
    pasted[where] = part
    np.testing.assert_allclose(pasted, plan.to_native(volume), atol=1e-4 * np.abs(volume).max())


def trilinear(volume: np.ndarray, index: np.ndarray) -> float:
    low = np.floor(index).astype(int)
    value = 0.0
    for corner in np.ndindex(2, 2, 2):
        at = np.minimum(low + corner, np.array(volume.shape) - 1)
        weight = np.prod(np.where(corner, index - low, 1 - (index - low)))
        value += weight * volume[tuple(at)]
    return float(value)


@pytest.mark.parametrize("seed", range(6))
def test_linear_maps_survive_the_way_there_and_back(seed: int):
    """Trilinear interpolation reproduces a linear function, so inside the volume nothing may change."""
    geometry = grid((12, 14, 16), (0.9, 1.3, 2.1), (5.0, 6.0, 7.0), rotation(seed))
    z, y, x = np.indices(geometry.shape)
    volume = (0.5 * z + 0.25 * y - 0.125 * x).astype(np.float32)
    plan = PreparedGrid.plan(geometry, (0.8, 0.7, 0.6), seed % 3)
    back = plan.to_native(plan.to_prepared(volume))
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(back[inner], volume[inner], atol=1e-4)


def test_constant_volume_stays_constant_up_to_the_border():
    plan = PreparedGrid.plan(grid((5, 6, 7), direction=rotation(3)), (0.37, 1.7, 2.9), 1)
    prepared = plan.to_prepared(np.full((5, 6, 7), 8.0, np.float32))
    np.testing.assert_allclose(prepared, 8.0)
    np.testing.assert_allclose(plan.to_native(prepared), 8.0)


def test_axis_is_resampled_only_if_its_number_of_voxels_changes():
    plan = PreparedGrid.plan(grid((10, 40, 40), (1.0, 1.01, 5.0)), (None, 1.0, 1.0), 0)
    assert not plan.is_resampled
    assert plan.spacing == (5.0, 1.01, 1.0)
    assert PreparedGrid.plan(grid((10, 80, 40), (1.0, 1.01, 5.0)), (None, 1.0, 1.0), 0).is_resampled


def test_single_slice_volume():
    geometry = grid((1, 6, 8), (1.0, 1.0, 5.0), direction=rotation(2))
    volume = noise(geometry.shape)
    kept = PreparedGrid.plan(geometry, KEEP, 0)
    np.testing.assert_array_equal(kept.to_native(kept.to_prepared(volume)), volume)
    thick = PreparedGrid.plan(geometry, (1.0, 1.0, 1.0), 0)
    assert np.prod(thick.shape) == 5 * volume.size
    np.testing.assert_allclose(thick.to_native(thick.to_prepared(volume)), volume, rtol=1e-5)


def test_nearest_keeps_label_values():
    plan = PreparedGrid.plan(grid((4, 5, 6), direction=AXIAL), (0.4, 0.3, 1.7), 0)
    label = np.random.default_rng(0).choice(np.array([0, 3, 200], np.uint8), (4, 5, 6))
    prepared = plan.to_prepared(label, nearest=True)
    assert prepared.dtype == np.uint8
    assert set(np.unique(prepared)) == {0, 3, 200}
