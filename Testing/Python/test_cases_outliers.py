"""Labels that are shifted, or of another case, differ from the other cases' in place or in what lies beneath them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from case_volumes import TASK, grid, noise, save

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.facts import CaseFacts
from ForgettableSegLib.cases.findings import FindingCode
from ForgettableSegLib.cases.outliers import FEWEST_CASES, find_outliers, label_facts
from ForgettableSegLib.cases.validation import validate_cases

SHAPE = (16, 32, 32)


def structure(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright ellipsoid of a shape and place of its own in noise, and its two halves as labels."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices(SHAPE)
    cz, cy, cx = np.array([8, 16, 16]) + random.uniform(-1, 1, 3)
    a, b = random.uniform(7, 9), random.uniform(4, 5)
    if seed % 2:
        a, b = b, a
    inside = ((z - cz) / 5) ** 2 + ((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1
    image = noise(SHAPE, seed) * 0.2 + 300 * inside + 100 * (x < 16)
    return image.astype(np.float32), (inside * np.where(x < cx, 1, 4)).astype(np.uint8)


def write(folder: Path, labels: dict[int, np.ndarray], number: int = 12) -> list[Case]:
    cases = []
    for seed in range(number):
        image, label = structure(seed)
        paths = folder / f"i{seed}.nii.gz", folder / f"l{seed}.nii.gz"
        save(paths[0], image, grid(SHAPE))
        save(paths[1], labels.get(seed, label), grid(SHAPE))
        cases.append(Case(f"c{seed}", f"c{seed}", paths[:1], paths[1]))
    return cases


def test_a_shifted_and_a_swapped_label_are_told_and_no_other(tmp_path: Path) -> None:
    assert [one for one in validate_cases(write(tmp_path / "good", {}), TASK) if one.code != "FILE_REPEATED"] == []
    labels = {3: np.roll(structure(3)[1], 10, axis=2), 4: structure(5)[1], 5: structure(4)[1]}
    findings = [one for one in validate_cases(write(tmp_path / "bad", labels), TASK)]
    assert {(one.severity, one.code, one.case_id) for one in findings} == {
        ("warning", FindingCode.LABEL_UNUSUAL, f"c{seed}") for seed in labels
    }
    by_case = {one.case_id: one.message for one in findings}
    assert "mm off the usual place (left-right)" in by_case["c3"]
    assert "times as uneven beneath its label" in by_case["c4"]
    assert str(tmp_path / "bad" / "l3.nii.gz") in by_case["c3"]


def test_a_class_of_another_volume_is_told(tmp_path: Path) -> None:
    label = structure(2)[1]
    label[label == 4] = np.where(np.arange((label == 4).sum()) % 20 == 0, 4, 0)
    (finding,) = [one for one in validate_cases(write(tmp_path, {2: label}), TASK) if "cartilage" in one.message]
    assert finding.case_id == "c2"
    assert "its cartilage has" in finding.message


def test_few_or_equal_cases_say_nothing(tmp_path: Path) -> None:
    labels = {3: np.roll(structure(3)[1], 10, axis=2)}
    assert validate_cases(write(tmp_path, labels, FEWEST_CASES - 1), TASK) == []
    image, label = structure(0)
    geometry = grid(SHAPE)
    same = [CaseFacts(f"c{n}", geometry, {1: 100 + n}, label_facts(image, label, geometry)) for n in range(9)]
    assert find_outliers(same, TASK) == []


def test_facts_of_a_label_are_what_they_say() -> None:
    image = np.zeros((4, 6, 8), np.float32)
    image[..., 4:] = 10
    label = np.zeros((4, 6, 8), np.uint8)
    label[1:3, 2:4, 6:8] = 1
    facts = label_facts(image, label, grid((4, 6, 8), (2.0, 1.0, 3.0)))
    assert facts.centre_mm == pytest.approx(((6.5 - 3.5) * 2, 0, 0))
    assert facts.unevenness == 0
    assert label_facts(image, np.zeros_like(label), grid((4, 6, 8))) is None
    label[1:3, 2:4, 0:2] = 1
    assert label_facts(image, label, grid((4, 6, 8))).unevenness == pytest.approx(1)
