"""Preprocessing as METHOD A.2 and A.6 state it, and the exact way back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from case_volumes import TASK, blocks, grid, noise, rotation, save, save_case
from hypothesis import given
from hypothesis import strategies as st

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.case_list import read_case_list
from ForgettableSegLib.cases.files import read_image
from ForgettableSegLib.cases.intensity import ForegroundStatistics, image_scaling
from ForgettableSegLib.cases.label_files import read_label
from ForgettableSegLib.cases.labels import IGNORE_LABEL, to_class_indices, to_label_values, values_present
from ForgettableSegLib.cases.preprocessing import (
    Preprocessing,
    plan_preprocessing,
    prepare,
    prepare_case,
    restore,
    restore_scalar,
)
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

KEEP = Preprocessing(spatial_dims=2, modality="MR", slice_axis=0, spacing=(None, None, None))
CT_TASK = Task("knee", "CT", ("CT",), TASK.classes)


def cases_with_spacings(folder: Path, spacings: list[tuple[float, float, float]]) -> list[Case]:
    return [save_case(folder, f"c{n}", geometry=grid((4, 5, 6), spacing), seed=n) for n, spacing in enumerate(spacings)]


def test_spacing_is_the_median_of_each_axis(tmp_path: Path):
    cases = cases_with_spacings(tmp_path, [(1.0, 2.0, 5.0), (1.5, 1.0, 7.0), (1.25, 1.5, 9.0)])
    plan = plan_preprocessing(cases, TASK, spatial_dims=3)
    assert plan.spacing == pytest.approx((7.0, 1.5, 1.25))
    assert plan.slice_axis == 0
    flat = plan_preprocessing(cases, TASK, spatial_dims=2)
    assert flat.spacing == (None, *plan.spacing[1:])


@pytest.mark.parametrize(
    ("size", "spacing", "dims"),
    [
        ((40, 50, 36), (1.0, 1.0, 1.0), 3),
        ((40, 50, 36), (1.0, 1.0, 3.5), 2),
        ((70, 50, 36), (1.0, 1.0, 1.0), 2),
        ((40, 50, 12), (1.0, 1.0, 1.0), 2),
    ],
)
def test_volumes_are_chosen_where_a_patch_holds_a_case(tmp_path: Path, size, spacing, dims: int):
    case = save_case(tmp_path, geometry=grid(size, spacing))
    assert plan_preprocessing([case], TASK, spatial_dims=None).spatial_dims == dims


def test_spacing_belongs_to_anatomical_axes(tmp_path: Path):
    """A volume that is stored sagittally has its thick axis along x of the patient."""
    sagittal = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    case = save_case(tmp_path, geometry=grid((4, 5, 6), (1.0, 2.0, 5.0), direction=sagittal))
    plan = plan_preprocessing([case], TASK, spatial_dims=2)
    assert plan.slice_axis == 2
    assert plan.spacing == (2.0, 1.0, None)
    assert prepare_case(case, TASK, plan).image.shape == (1, 4, 5, 6)


def test_slice_axis_is_axial_unless_another_is_clearly_coarser_or_chosen(tmp_path: Path):
    cases = cases_with_spacings(tmp_path, [(1.1, 1.0, 1.0)])
    assert plan_preprocessing(cases, TASK, spatial_dims=2).slice_axis == 0
    chosen = plan_preprocessing(cases, TASK, spatial_dims=2, slice_axis=1)
    assert chosen.slice_axis == 1
    assert chosen.spacing[1] is None
    with pytest.raises(ForgettableSegError, match="slice_axis must be"):
        plan_preprocessing(cases, TASK, spatial_dims=2, slice_axis=3)


def test_isotropic_is_one_number_also_through_plane(tmp_path: Path):
    cases = cases_with_spacings(tmp_path, [(1.0, 2.0, 5.0), (1.5, 1.0, 7.0)])
    plan = plan_preprocessing(cases, TASK, spatial_dims=2, isotropic=True)
    assert plan.spacing == (1.75, 1.75, 1.75)
    assert prepare_case(cases[0], TASK, plan).image.shape == (1, round(4 * 5 / 1.75), round(5 * 2 / 1.75), 3)


def test_no_training_case():
    with pytest.raises(ForgettableSegError, match="no training case"):
        plan_preprocessing([], TASK, spatial_dims=2)


def test_ct_is_clipped_and_scaled_by_foreground_statistics_of_all_cases(tmp_path: Path):
    rng = np.random.default_rng(0)
    cases, foreground = [], []
    for n in range(3):
        image = rng.normal(-200, 900, (4, 5, 6)).astype(np.float32)
        label = (rng.random((4, 5, 6)) < 0.3).astype(np.uint8) * 4
        paths = save(tmp_path / f"i{n}.nrrd", image), save(tmp_path / f"l{n}.nrrd", label)
        cases.append(Case(f"c{n}", f"c{n}", paths[:1], paths[1]))
        foreground.append(np.clip(image, -1000, 400)[label > 0])
    pooled = np.concatenate(foreground).astype(np.float64)
    plan = plan_preprocessing(cases, CT_TASK, spatial_dims=3)
    assert plan.ct_statistics[0] == pytest.approx((pooled.mean(), pooled.std()))
    expected = (np.clip(read_image(cases[0])[0], -1000, 400) - pooled.mean()) / pooled.std()
    np.testing.assert_allclose(prepare_case(cases[0], CT_TASK, plan).image, expected, atol=1e-5)


def test_ct_statistics_without_foreground_are_those_of_the_whole_image():
    statistics = ForegroundStatistics(1)
    image = np.linspace(-2000, 1000, 60, dtype=np.float32).reshape(1, 3, 4, 5)
    statistics.add(image, np.zeros((3, 4, 5), bool))
    clipped = np.clip(image.astype(np.float64), -1000, 400)
    assert statistics.result()[0] == pytest.approx((clipped.mean(), clipped.std()))


def background_share(share: float, *, offset: float = 0.0) -> np.ndarray:
    image = noise((10, 10, 10)) + offset
    image[np.random.default_rng(1).random(image.shape) < share] = 0
    return image


@pytest.mark.parametrize(
    ("image", "only_nonzero"),
    [
        (background_share(0.5), True),
        (background_share(0.02), True),
        (background_share(0.001), False),
        (background_share(0.02, offset=-50), False),
        (background_share(0.6, offset=-50), True),
        (noise((10, 10, 10)), False),
    ],
)
def test_mri_zeros_count_only_if_they_are_not_background(image: np.ndarray, only_nonzero: bool):
    used = image[image != 0] if only_nonzero else image
    scaling = image_scaling(image)
    assert scaling.mean == pytest.approx(used.mean(dtype=np.float64))
    assert scaling.deviation == pytest.approx(used.std(dtype=np.float64))


@pytest.mark.parametrize("value", [0.0, 3.0, -2.5e6])
def test_constant_image_becomes_zero(value: float):
    prepared = prepare(np.full((1, 3, 4, 5), value, np.float32), grid((3, 4, 5)), KEEP)
    np.testing.assert_array_equal(prepared.image, 0)


@given(st.floats(1e-6, 1e6), st.floats(-10, 10))
def test_normalised_image_does_not_depend_on_scanner_units(gain: float, offset: float):
    """z-score: mean 0, deviation 1, and the same for any positive gain."""
    image = noise((1, 4, 5, 6)) + np.float32(offset)
    geometry = grid((4, 5, 6))
    first = prepare(image, geometry, KEEP).image
    second = prepare((image * np.float32(gain)), geometry, KEEP).image
    assert first.mean() == pytest.approx(0, abs=1e-5)
    assert first.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(second, first, atol=1e-4)


def test_background_zeros_are_decided_before_resampling():
    """One affine map of the native image: resampling the scaled image gives the same as scaling the resampled one."""
    image = background_share(0.5)
    plan = Preprocessing(spatial_dims=3, modality="MR", slice_axis=0, spacing=(0.6, 0.7, 0.8))
    prepared = prepare(image[None], grid(image.shape), plan)
    scaling = image_scaling(image)
    native = (image - np.float32(scaling.mean)) / np.float32(scaling.deviation)
    np.testing.assert_allclose(prepared.image[0], prepared.grid.to_prepared(native), atol=1e-5)


def test_channels_are_normalised_by_themselves_and_input_is_not_changed():
    image = np.stack([noise((4, 5, 6)), 1000 * noise((4, 5, 6), 1)])
    before = image.copy()
    prepared = prepare(image, grid((4, 5, 6)), KEEP)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_allclose(prepared.image.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(prepared.image.std(axis=(1, 2, 3)), 1, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_not_numbers(bad: float):
    image = noise((1, 3, 4, 5))
    image[0, 1, 2, 3] = bad
    with pytest.raises(ForgettableSegError, match=r"knee\.nrrd holds voxels that are not numbers") as caught:
        prepare(image, grid((3, 4, 5)), KEEP, name="knee.nrrd")
    assert caught.value.code is ErrorCode.CASE_INVALID


def test_ct_with_too_many_channels():
    plan = Preprocessing(3, "CT", 0, (1.0, 1.0, 1.0), ct_statistics=((0.0, 1.0),))
    with pytest.raises(ForgettableSegError, match="has 2 channels"):
        prepare(noise((2, 3, 4, 5)), grid((3, 4, 5)), plan)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_restore_is_an_exact_copy_where_nothing_is_resampled(seed: int, slice_axis: int):
    geometry = grid((4, 5, 6), (0.7, 1.1, 6.0), direction=rotation(seed))
    plan = Preprocessing(2, "MR", slice_axis, (None, None, None))
    native = noise((3, 4, 5, 6))
    prepared = prepare(native[:1], geometry, plan, blocks((4, 5, 6)))
    probabilities = np.stack([prepared.grid.to_prepared(one) for one in native])
    np.testing.assert_array_equal(restore(probabilities, prepared), native)
    np.testing.assert_array_equal(restore(torch.from_numpy(probabilities.copy()), prepared), native)
    np.testing.assert_array_equal(restore_scalar(prepared.label, prepared), blocks((4, 5, 6)))


@pytest.mark.parametrize("seed", range(4))
def test_restored_probabilities_lie_on_the_native_grid_and_add_up(seed: int):
    geometry = grid((7, 9, 11), (0.7, 1.1, 4.0), direction=rotation(seed))
    plan = Preprocessing(3, "MR", seed % 3, (1.5, 1.0, 1.3))
    prepared = prepare(noise((1, 7, 9, 11)), geometry, plan)
    logits = np.random.default_rng(seed).normal(size=(4, *prepared.grid.shape)).astype(np.float32)
    probabilities = torch.softmax(torch.from_numpy(logits), 0)
    restored = restore(probabilities, prepared)
    assert restored.dtype == np.float32
    assert restored.shape == (4, *geometry.shape)
    np.testing.assert_allclose(restored.sum(0), 1, atol=1e-5)
    assert restored.min() >= 0
    np.testing.assert_array_equal(restore_scalar(probabilities[2], prepared), restored[2])


def test_smooth_structure_survives_resampling_and_back():
    """A ball that is segmented perfectly on the prepared grid must come back as the same ball."""
    geometry = grid((30, 40, 40), (1.0, 1.0, 1.5), direction=rotation(1))
    z, y, x = np.indices(geometry.shape)
    distance = np.hypot(np.hypot((z - 15) * 1.5, y - 20), x - 19)
    ball = np.clip(10.5 - distance, 0, 1).astype(np.float32)
    plan = Preprocessing(3, "MR", 0, (1.2, 0.9, 0.9))
    prepared = prepare(ball[None] + 1, geometry, plan)
    back = restore(np.stack([1 - prepared.grid.to_prepared(ball), prepared.grid.to_prepared(ball)]), prepared).argmax(0)
    truth = ball > 0.5
    assert 2 * np.sum(back & truth) / (back.sum() + truth.sum()) > 0.98


def test_single_slice_case():
    geometry = grid((1, 12, 14), (0.5, 0.5, 8.0))
    plan = Preprocessing(2, "MR", 0, (None, 1.0, 1.0))
    prepared = prepare(noise((1, 1, 12, 14)), geometry, plan, blocks((1, 12, 14)))
    assert prepared.image.shape == (1, 1, 6, 7)
    assert restore(prepared.image, prepared).shape == (1, 1, 12, 14)


def test_labels_become_class_indices_and_back():
    label = blocks((4, 5, 6))
    indices = to_class_indices(label, TASK)
    assert set(np.unique(indices)) == {0, 1, 2}
    assert IGNORE_LABEL not in indices
    back = to_label_values(indices, TASK)
    np.testing.assert_array_equal(back, label)
    assert back.dtype == np.uint8
    large = Task("x", "MR", ("T1",), (SegmentClass("a", 7000), SegmentClass("b", 3)))
    values = np.array([[[0, 3, 7000]]], np.int32)
    np.testing.assert_array_equal(to_class_indices(values, large), [[[0, 2, 1]]])
    assert to_label_values(to_class_indices(values, large), large).dtype == np.uint16


@pytest.mark.parametrize("kind", [np.uint8, np.int32])
def test_values_present(kind: type):
    assert values_present(np.array([[[3, 0], [3, 3]], [[200, 0], [0, 0]]], kind)) == [0, 3, 200]


def test_settings_survive_json_and_refuse_nonsense():
    plan = Preprocessing(2, "CT", 1, (1.0, None, 0.5), isotropic=False, ct_statistics=((-100.5, 80.25),))
    assert Preprocessing.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    for changes, words in [
        ({"version": 99}, "update it"),
        ({"orientation": "RAS"}, "update it"),
        ({"spatial_dims": 4}, "2 or 3"),
        ({"slice_axis": 5}, "slice_axis"),
        ({"spacing": [0.0, 1.0, 1.0]}, "above zero"),
        ({"spacing": [1.0]}, "three numbers"),
        ({"ct_statistics": None}, "statistics"),
        ({"colour": 1}, "no setting 'colour'"),
    ]:
        with pytest.raises(ForgettableSegError, match=words) as caught:
            Preprocessing.from_dict({**plan.to_dict(), **changes})
        assert caught.value.code is ErrorCode.SETTING_INVALID
    with pytest.raises(ForgettableSegError, match="lack modality"):
        Preprocessing.from_dict({"spatial_dims": 2, "slice_axis": 0, "spacing": [1, 1, 1]})


def test_real_cases_come_back_exactly(shared_data: Path):
    found = read_case_list(shared_data / "AbdomenMR")
    case = found.cases[0]
    plan = plan_preprocessing(found.cases[:3], found.task, spatial_dims=2)
    prepared = prepare_case(case, found.task, plan)
    assert plan.spacing == (None, 1.25, 1.25)
    assert prepared.image.shape == (1, *prepared.label.shape)
    native = to_label_values(restore_scalar(prepared.label, prepared), found.task)
    np.testing.assert_array_equal(native, read_label(case, found.task))


def test_left_stays_left(shared_data: Path):
    """Kidneys of a real case: in the LPS frame x grows towards the patient's left."""
    found = read_case_list(shared_data / "AbdomenMR")
    names = [one.name for one in found.task.classes]
    case = found.cases[0]
    prepared = prepare_case(case, found.task, plan_preprocessing([case], found.task, spatial_dims=2))
    right, left = (
        np.argwhere(prepared.label == 1 + names.index(f"{side} kidney"))[:, 2].mean() for side in ("right", "left")
    )
    assert right < left
    physical = prepared.grid.index_to_physical([[0, 0, right], [0, 0, left]])
    assert physical[0, 0] < physical[1, 0]
