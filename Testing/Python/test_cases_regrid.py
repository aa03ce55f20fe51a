"""Labels and channels on another grid than the image: reordered without loss, resampled with a warning, or refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from case_volumes import TASK, blocks, grid, noise, rotation, save, save_case

from ForgettableSegLib.cases.findings import CaseError, Finding, FindingCode, hearing
from ForgettableSegLib.cases.label_files import read_label, read_label_map
from ForgettableSegLib.cases.regrid import overlap, reordered, resample_labels
from ForgettableSegLib.cases.validation import validate_cases

SHAPE = (6, 8, 10)


@pytest.mark.parametrize("seed", range(4))
def test_axes_in_any_order_and_direction_are_put_back_without_loss(seed: int) -> None:
    target = grid(SHAPE, (0.7, 1.1, 2.3), (5.0, -7.0, 11.0), rotation(seed))
    image = sitk.GetImageFromArray(np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE))
    target.apply_to(image)
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        other = sitk.Flip(sitk.PermuteAxes(image, order), flips)
        own = type(target).from_image(other)
        back = reordered(sitk.GetArrayFromImage(other), own, target)
        np.testing.assert_array_equal(back, sitk.GetArrayFromImage(image))
    assert reordered(sitk.GetArrayFromImage(image), replace(target, spacing=(0.7, 1.1, 2.0)), target) is None


def test_a_label_as_slicer_flips_it_is_read_without_a_word(tmp_path: Path) -> None:
    case = save_case(tmp_path, "a")
    flipped = sitk.Flip(sitk.PermuteAxes(sitk.ReadImage(str(case.label)), (2, 0, 1)), (True, False, True))
    sitk.WriteImage(flipped, str(case.label))
    assert validate_cases([case], TASK) == []
    np.testing.assert_array_equal(read_label(case, TASK, geometry=grid(SHAPE)), blocks(SHAPE))


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_label_on_another_grid_is_resampled_and_both_grids_are_named(tmp_path: Path, factor: float) -> None:
    """A ball: on a coarser grid by the nearest voxel, on a finer one with a smooth border."""
    shape = (20, 20, 20)
    case = save_case(tmp_path, "a", shape=shape)
    own = grid(tuple(round(20 / factor) for _ in range(3)), (factor,) * 3, ((factor - 1) / 2,) * 3)
    place = own.index_to_physical(np.indices(own.shape)[::-1].transpose(1, 2, 3, 0)) - 9.5
    ball = (np.linalg.norm(place, axis=-1) <= 6).astype(np.uint8) * 4
    save(case.label, ball, own)
    heard: list[Finding] = []
    with hearing(heard.append):
        found = read_label(case, TASK, geometry=grid(shape))
    truth = np.linalg.norm(np.stack(np.indices(shape)) - 9.5, axis=0) <= 6
    nearest = sitk.Resample(
        sitk.ReadImage(str(case.label)), sitk.ReadImage(str(case.images[0])), sitk.Transform(), sitk.sitkNearestNeighbor
    )
    stairs = sitk.GetArrayFromImage(nearest)
    dice = [2 * ((each == 4) & truth).sum() / ((each == 4).sum() + truth.sum()) for each in (found, stairs)]
    assert dice[0] > 0.9
    assert dice[0] >= dice[1]
    assert np.array_equal(found, stairs) == (factor < 1), "only on a finer grid is the border interpolated"
    (finding,) = heard
    assert finding.severity == "warning"
    assert finding.code is FindingCode.GRID_RESAMPLED
    assert f"{' x '.join(map(str, own.size))} voxels of {factor:g} x {factor:g} x {factor:g} mm" in finding.message
    assert "20 x 20 x 20 voxels of 1 x 1 x 1 mm" in finding.message


def test_what_covers_a_part_only_says_so_and_what_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    case = save_case(tmp_path, "a")
    save(case.label, blocks(SHAPE), grid(SHAPE, origin=(5.0, 0.0, 0.0)))
    finding, absent = validate_cases([case], TASK)
    assert (finding.severity, finding.code, finding.case_id) == ("warning", FindingCode.GRID_RESAMPLED, "a")
    assert absent.code is FindingCode.CLASS_ABSENT, "that class lies outside of the image now"
    assert "it covers 50% of it" in finding.message
    moved = read_label(case, TASK, geometry=grid(SHAPE))
    np.testing.assert_array_equal(moved[..., 5:], blocks(SHAPE)[..., :5])
    assert not moved[..., :5].any()
    save(case.label, blocks(SHAPE), grid(SHAPE, origin=(10.6, 0.0, 0.0)))
    with pytest.raises(CaseError, match="does not lie anywhere near"):
        read_label(case, TASK, geometry=grid(SHAPE))
    assert overlap(grid(SHAPE, origin=(10.6, 0.0, 0.0)), grid(SHAPE)) == 0


def test_a_finer_grid_keeps_every_class() -> None:
    values = np.zeros((4, 6, 6), np.uint16)
    values[:, :3, :3], values[:, 3:, 3:] = 300, 7
    fine = grid((8, 12, 12), (0.5, 0.5, 0.5), (-0.25, -0.25, -0.25))
    found = resample_labels(values, grid((4, 6, 6)), fine)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[::2, ::2, ::2], values)
    assert {value: int((found == value).sum()) for value in (300, 7)} == {300: 288, 7: 288}


def test_values_that_are_whole_up_to_rounding_are_rounded_with_a_warning(tmp_path: Path) -> None:
    case = save_case(tmp_path, "a")
    save(case.label, (blocks(SHAPE) * 0.9999999).astype(np.float64), grid(SHAPE))
    np.testing.assert_array_equal(read_label_map(case.label)[0], blocks(SHAPE))
    (finding,) = validate_cases([case], TASK)
    assert (finding.severity, finding.code, finding.case_id) == ("warning", FindingCode.LABEL_ROUNDED, "a")
    save(case.label, blocks(SHAPE) + 0.01, grid(SHAPE))
    with pytest.raises(CaseError, match="not whole numbers"):
        read_label_map(case.label)


def test_channels_of_the_image_on_another_grid_are_told_by_validation(tmp_path: Path) -> None:
    case = save_case(tmp_path, "a")
    second = save(tmp_path / "two.nrrd", noise(SHAPE, 3), grid(SHAPE, (1.0, 1.0, 2.0)))
    task = replace(TASK, channels=("T1", "T2"))
    (finding,) = validate_cases([replace(case, images=(*case.images, second))], task)
    assert (finding.code, finding.path) == (FindingCode.GRID_RESAMPLED, second)
