"""The cases that the demonstration cuts from the template lie where they should and do not overlap."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("nilearn", reason="needs the template of nilearn (extra `demo`)")

from ForgettableSegLib.jobs import demo_data


def test_each_crop_holds_its_hippocampus_at_its_centre(tmp_path: Path) -> None:
    cases = demo_data.write_hippocampus_cases(tmp_path)
    assert [case["id"] for case in cases] == ["left_hippocampus", "right_hippocampus"]
    for case, (right, anterior, superior) in zip(cases, demo_data.HIPPOCAMPUS_CENTRES.values(), strict=True):
        image = sitk.ReadImage(case["images"][0])
        index = image.TransformPhysicalPointToIndex((-right, -anterior, superior))
        assert image.GetSize() == demo_data.HIPPOCAMPUS_CROP
        assert [abs(position - size // 2) for position, size in zip(index, image.GetSize(), strict=True)] == [0, 0, 0]
    left, right = (sitk.ReadImage(case["images"][0]) for case in cases)
    # The template is symmetric, so one crop is the other seen in a mirror.
    mirrored = sitk.GetArrayFromImage(right)[:, :, ::-1].astype(float)
    agreement = np.corrcoef(sitk.GetArrayFromImage(left).ravel().astype(float), mirrored.ravel())[0, 1]
    assert agreement > 0.95


def test_tissue_slabs_are_apart_and_labelled_by_the_likelier_tissue(tmp_path: Path) -> None:
    cases = demo_data.write_tissue_cases(tmp_path)
    assert len(cases) == demo_data.SLABS
    assert len({case["group"] for case in cases}) == demo_data.SLABS
    ranges = []
    for case in cases:
        image, label = sitk.ReadImage(case["images"][0]), sitk.ReadImage(case["label"])
        assert image.GetSize() == label.GetSize()
        np.testing.assert_allclose(image.GetOrigin(), label.GetOrigin())
        first = image.GetOrigin()[2]
        ranges.append((first, first + image.GetDepth() - 1))
        values, counts = np.unique(sitk.GetArrayFromImage(label), return_counts=True)
        assert values.tolist() == [0, 1, 2]
        assert counts.min() > 1000
    gaps = [following[0] - previous[1] for previous, following in itertools.pairwise(ranges)]
    assert min(gaps) > demo_data.SLAB_GAP


def test_a_tissue_label_says_which_probability_is_above_one_half(tmp_path: Path) -> None:
    case = demo_data.write_tissue_cases(tmp_path)[2]
    label = sitk.ReadImage(case["label"])
    for value, kind in enumerate(demo_data.TISSUES.values(), start=1):
        probability = sitk.Resample(demo_data.template(kind), label, sitk.Transform(), sitk.sitkNearestNeighbor)
        expected = sitk.GetArrayFromImage(probability) > 127
        np.testing.assert_array_equal(sitk.GetArrayFromImage(label) == value, expected)


def test_the_overview_copies_both_crops_to_their_places(tmp_path: Path) -> None:
    cases = demo_data.write_hippocampus_cases(tmp_path)
    paths = demo_data.write_overview(tmp_path, {"copy": [Path(case["images"][0]) for case in cases]})
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(paths["image"])))
    copy = sitk.GetArrayFromImage(sitk.ReadImage(str(paths["copy"])))
    np.testing.assert_array_equal(copy[copy > 0], image[copy > 0])
    voxels = sum((sitk.GetArrayFromImage(sitk.ReadImage(case["images"][0])) > 0).sum() for case in cases)
    assert (copy > 0).sum() == voxels
