"""Extents, pieces and quantiles of cases, against volumes of which they are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.shape import count_pieces, extent_mm, gain_of_largest, keep_largest, measure_cases
from ForgettableSegLib.cases.task import SegmentClass, Task

TASK = Task("box", "MR", ("T1",), (SegmentClass("box", 1), SegmentClass("dot", 2)))


def test_extent_is_told_along_the_axes_of_the_patient() -> None:
    # x of the array runs to the head, y to the left, z to the back.
    axes = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    geometry = Geometry((10, 20, 30), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), axes)
    assert extent_mm(geometry) == pytest.approx((40, 90, 10))


def test_pieces_touching_at_a_corner_are_one() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert count_pieces(mask) == 1
    mask[3, 3, 3] = True
    assert count_pieces(mask) == 2
    assert count_pieces(np.zeros((2, 2, 2), bool)) == 0


def test_all_but_the_largest_piece_of_a_class_goes() -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[:2] = 1
    labels[4, 0, :3] = 1
    labels[5, 5, 5] = 2
    assert keep_largest(labels, [1, 2, 3]) == {1: 3}
    assert (labels == 1).sum() == 72
    assert (labels == 2).sum() == 1


def test_the_gain_of_the_largest_piece_is_that_of_dice() -> None:
    reference = np.zeros((6, 6, 6), bool)
    reference[0] = True
    predicted = reference.copy()
    assert gain_of_largest(predicted, reference) == 0
    predicted[4, 0, :4] = True
    assert gain_of_largest(predicted, reference) == pytest.approx(1 - 72 / 76)
    assert gain_of_largest(predicted, ~reference) < 0


def test_measures_of_cases_are_quantiles(tmp_path: Path) -> None:
    cases = []
    for number, length in enumerate((20, 24, 28)):
        image, labels = np.zeros((length, 10, 10), np.float32), np.zeros((length, 10, 10), np.uint8)
        image[: length // 2] = 1
        labels[2:7, 2:7, 2:6] = 1
        labels[9, 9, 9] = labels[0, 0, 0] = 1
        paths = [tmp_path / f"{number}.nrrd", tmp_path / f"{number}_label.nrrd"]
        for path, array in zip(paths, (image, labels), strict=True):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((2.0, 1.0, 1.5))
            sitk.WriteImage(volume, str(path))
        cases.append(Case(str(number), str(number), (paths[0],), paths[1]))
    cases.append(Case("lost", "lost", (tmp_path / "lost.nrrd",), tmp_path / "lost_label.nrrd"))
    measures = measure_cases(cases, TASK)
    assert measures["extent_mm"] == [[20, 20, 20], [10, 10, 10], pytest.approx([30.6, 36, 41.4])]
    assert measures["spacing_mm"] == [[2, 2, 2], [1, 1, 1], [1.5, 1.5, 1.5]]
    assert set(measures["classes"]) == {"box"}, "a class that no case holds has not been learnt"
    assert measures["classes"]["box"]["pieces"] == [3, 3, 3]
    assert measures["classes"]["box"]["volume_ml"] == pytest.approx([0.306] * 3)
    assert measure_cases([], TASK) == {}
