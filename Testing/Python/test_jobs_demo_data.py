"""The cases that the demonstration cuts from the template lie where they should and do not overlap."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("nilearn", reason="needs the template of nilearn (extra `demo`)")

from ForgettableSegLib.jobs import demo_data


def test_the_head_is_the_whole_template(tmp_path: Path) -> None:
    case = demo_data.write_head(tmp_path)
    head, whole = sitk.ReadImage(case["images"][0]), demo_data.template("t1")
    assert head.GetSize() == whole.GetSize()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(head), sitk.GetArrayFromImage(whole))


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


def test_the_overview_is_the_same_part_of_image_and_maps(tmp_path: Path) -> None:
    case = demo_data.write_head(tmp_path)
    paths = demo_data.write_overview(tmp_path, {"copy": Path(case["images"][0])})
    image, copy = sitk.ReadImage(str(paths["image"])), sitk.ReadImage(str(paths["copy"]))
    assert image.GetSize() == demo_data.BOTH_HIPPOCAMPI_CROP
    assert image.GetOrigin() == copy.GetOrigin()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(copy), sitk.GetArrayFromImage(image))
    for right, anterior, superior in demo_data.HIPPOCAMPUS_CENTRES.values():
        index = image.TransformPhysicalPointToIndex((-right, -anterior, superior))
        assert all(0 <= place < size for place, size in zip(index, image.GetSize(), strict=True))
