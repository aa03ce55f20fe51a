"""Every defect of a case list is found in one pass, with its own sentence that names the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from case_volumes import TASK, blocks, grid, noise, save, save_case

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.case_list import read_case_list
from ForgettableSegLib.cases.findings import FindingCode
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.cases.validation import validate_cases

SHAPE = (6, 8, 10)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def with_voxel(value: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        array = noise(SHAPE)
        array[3, 4, 5] = value
        save(path, array, grid(SHAPE))

    return change


def four_dimensional(path: Path) -> None:
    volume = sitk.GetImageFromArray(noise(SHAPE))
    sitk.WriteImage(sitk.JoinSeries([volume] * 4), str(path))


def colour(path: Path) -> None:
    save(path, np.zeros((*SHAPE, 3), np.uint8), is_vector=True)


def two_channels(path: Path) -> None:
    save(path, np.zeros((*SHAPE, 2), np.float32), is_vector=True)


def zero_spacing(path: Path) -> None:
    import gzip
    import struct

    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<f", content, 80, 0.0)
    path.write_bytes(gzip.compress(content))


def text(path: Path) -> None:
    path.write_text("text " * 200)


def other_grid(path: Path) -> None:
    save(path, blocks(SHAPE), grid(SHAPE, origin=(30.0, 0.0, 0.0)))


def label(values: np.ndarray) -> Callable[[Path], None]:
    return lambda path: save(path, values, grid(SHAPE)) and None


IMAGE_DEFECTS = [
    (Path.unlink, FindingCode.FILE_MISSING, "does not exist"),
    (text, FindingCode.FILE_UNREADABLE, "no NIfTI volume"),
    (cut, FindingCode.FILE_TRUNCATED, "cut off"),
    (with_voxel(np.nan), FindingCode.NOT_FINITE, "not numbers"),
    (with_voxel(np.inf), FindingCode.NOT_FINITE, "not numbers"),
    (four_dimensional, FindingCode.FOUR_DIMENSIONAL, "four-dimensional"),
    (colour, FindingCode.COLOUR_IMAGE, "colour image"),
    (two_channels, FindingCode.CHANNEL_COUNT, "2 image channels, but the task has only 1"),
    (zero_spacing, FindingCode.SPACING_INVALID, "spacing of 0 x 1 x 1"),
]
LABEL_DEFECTS = [
    (Path.unlink, FindingCode.FILE_MISSING, "does not exist"),
    (cut, FindingCode.FILE_TRUNCATED, "cut off"),
    (other_grid, FindingCode.GRID_DIFFERS, "its grid is 10 x 8 x 6 voxels of 1 x 1 x 1 mm from (30, 0, 0), the other"),
    (label(blocks(SHAPE) * 2), FindingCode.LABEL_VALUE_UNKNOWN, "does not know: 2, 8"),
    (label(blocks(SHAPE).astype(np.int16) - 1), FindingCode.LABEL_VALUE_UNKNOWN, "does not know: -1, 3"),
    (label(blocks(SHAPE) * np.float32(0.5)), FindingCode.LABEL_NOT_INTEGER, "not whole numbers"),
]


@pytest.mark.parametrize("defect", IMAGE_DEFECTS + LABEL_DEFECTS, ids=lambda defect: str(defect[1]))
def test_each_defect_is_one_error_that_names_the_file(tmp_path: Path, defect: tuple):
    change, code, words = defect
    good, bad = save_case(tmp_path, "good"), save_case(tmp_path, "bad", seed=1)
    path = bad.images[0] if defect in IMAGE_DEFECTS else bad.label
    change(path)
    (finding,) = [one for one in validate_cases([good, bad], TASK) if one.severity == "error"]
    assert finding.code is code
    assert finding.case_id == "bad"
    assert finding.path == path
    assert str(path) in finding.message
    assert words in finding.message
    assert finding.message.endswith(".")


def test_good_cases_have_no_findings(tmp_path: Path):
    assert validate_cases([save_case(tmp_path, "a"), save_case(tmp_path, "b", seed=1)], TASK) == []


def test_all_defects_are_found_at_once(tmp_path: Path):
    cases = [save_case(tmp_path, f"c{n}", seed=n) for n in range(len(IMAGE_DEFECTS))]
    for case, (change, *_) in zip(cases, IMAGE_DEFECTS, strict=True):
        change(case.images[0])
        save(case.label, blocks(SHAPE) * 2, grid(SHAPE))
    errors = [one for one in validate_cases(cases, TASK) if one.severity == "error"]
    for case, (_, code, _) in zip(cases, IMAGE_DEFECTS, strict=True):
        assert [one.code for one in errors if one.case_id == case.case_id] == [code, FindingCode.LABEL_VALUE_UNKNOWN]


def test_missing_label_matters_for_training_only(tmp_path: Path):
    unlabelled = replace(save_case(tmp_path), label=None)
    (finding,) = validate_cases([unlabelled], TASK)
    assert finding.code is FindingCode.LABEL_MISSING
    assert validate_cases([unlabelled], TASK, labels_required=False) == []


def test_warnings_about_content(tmp_path: Path):
    empty = save_case(tmp_path, "empty")
    save(empty.label, np.zeros(SHAPE, np.uint8), grid(SHAPE))
    flat = save_case(tmp_path, "flat", seed=1)
    save(flat.images[0], np.full(SHAPE, 7, np.int16), grid(SHAPE))
    findings = validate_cases([empty, flat], TASK)
    assert {(one.severity, one.code, one.case_id) for one in findings} == {
        ("warning", FindingCode.FOREGROUND_EMPTY, "empty"),
        ("error", FindingCode.CONSTANT_IMAGE, "flat"),
    }


def test_class_that_never_occurs(tmp_path: Path):
    task = Task("knee", "MR", ("T1",), (*TASK.classes, SegmentClass("meniscus", 9)))
    (finding,) = validate_cases([save_case(tmp_path)], task)
    assert finding.code is FindingCode.CLASS_ABSENT
    assert "'meniscus' (value 9)" in finding.message


def test_sheared_axes_are_a_warning(tmp_path: Path):
    case = save_case(tmp_path)
    geometry = grid(SHAPE, direction=(1, 0, 0, 0, 1, 0.3, 0, 0, 0.954))
    images, label_map = tmp_path / "i.nrrd", tmp_path / "l.nrrd"
    save(images, noise(SHAPE), geometry)
    save(label_map, blocks(SHAPE), geometry)
    (finding,) = validate_cases([replace(case, images=(images,), label=label_map)], TASK)
    assert (finding.severity, finding.code) == ("warning", FindingCode.AXES_SHEARED)


def test_repeated_ids_and_files(tmp_path: Path):
    first, second = save_case(tmp_path, "a"), save_case(tmp_path, "b", seed=1)
    (finding,) = validate_cases([first, replace(second, case_id="a")], TASK)
    assert (finding.severity, finding.code) == ("error", FindingCode.CASE_ID_REPEATED)
    assert "2 cases have the id 'a'" in finding.message

    copied = shutil.copy(first.images[0], tmp_path / "copy.nii.gz")
    (finding,) = validate_cases([first, replace(second, images=(Path(copied),))], TASK)
    assert (finding.severity, finding.code) == ("warning", FindingCode.FILE_REPEATED)
    assert "2 cases have the same image" in finding.message


def test_file_used_twice_in_a_case(tmp_path: Path):
    case = save_case(tmp_path)
    as_image = replace(case, images=(case.label,))
    (finding,) = validate_cases([as_image], TASK)
    assert (finding.severity, finding.code) == ("error", FindingCode.FILE_REPEATED)
    assert str(case.label) in finding.message
    two = Task("knee", "MR", ("T1", "T2"), TASK.classes)
    (finding,) = validate_cases([replace(case, images=case.images * 2)], two)
    assert finding.code is FindingCode.FILE_REPEATED


def test_dicom_folder_with_two_series(shared_data: Path, tmp_path: Path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for series in ("T1post", "HippocampusCrop"):
        for path in (shared_data / "DicomBrain" / series).iterdir():
            shutil.copy(path, folder / f"{series}{path.name}")
    (finding,) = validate_cases([Case("k", "k", (folder,))], TASK, labels_required=False)
    assert (finding.severity, finding.code) == ("warning", FindingCode.SEVERAL_SERIES)
    assert "2 DICOM series; the one with most slices (32)" in finding.message
    for number in (4, 14):
        (folder / f"HippocampusCrop{number}.dcm").unlink()
    codes = [one.code for one in validate_cases([Case("k", "k", (folder,))], TASK, labels_required=False)]
    assert codes == [FindingCode.SEVERAL_SERIES, FindingCode.SLICES_UNEVEN]


def test_progress_can_stop_it(tmp_path: Path):
    seen = []
    cases = [save_case(tmp_path, name, seed=n) for n, name in enumerate("ab")]
    validate_cases(cases, TASK, progress=lambda *step: seen.append(step))
    assert seen == [(0, 2, "a"), (1, 2, "b"), (2, 2, "")]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate_cases(cases, TASK, progress=stop)


def test_real_cases_are_good(shared_data: Path):
    for name, count in (("Hippocampus", 25), ("AbdomenMR", 3)):
        found = read_case_list(shared_data / name)
        findings = validate_cases(found.cases[:count], found.task)
        # The image of this one is uneven beneath its label indeed; it is one of three such among all 200.
        assert [one.case_id for one in findings if one.code is not FindingCode.LABEL_UNUSUAL] == []
        assert [one.case_id for one in findings] in ([], ["hippocampus_041"])
