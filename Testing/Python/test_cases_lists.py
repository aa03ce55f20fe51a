"""Case lists from the layouts that people have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from case_volumes import TASK, blocks, noise, save

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.case_list import cases_from_dicts, read_case_list, read_folder_pair
from ForgettableSegLib.cases.files import read_image
from ForgettableSegLib.cases.label_files import read_label
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

SHAPE = (3, 4, 5)
DECATHLON = {"name": "knee", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "bone", "4": "cartilage"}}
NNUNET = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "bone": 1, "cartilage": 4},
    "file_ending": ".nrrd",
}
TWO_CHANNELS = Task("knee", "MR", ("T1", "T2"), (SegmentClass("bone", 1),))


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def image(path: Path) -> Path:
    return save(path, noise(SHAPE))


def label(path: Path) -> Path:
    return save(path, blocks(SHAPE))


def ids(cases) -> list[str]:
    return [case.case_id for case in cases]


def assert_readable(cases, channels: int = 1) -> None:
    for case in cases:
        assert read_image(case)[0].shape == (channels, *SHAPE)
        assert read_label(case, TASK).max() == 4


def decathlon(folder: Path, names: tuple[str, ...] = ("a.nii.gz", "b.nii.gz"), suffix: str = "") -> Path:
    for name in names:
        image(folder / "imagesTr" / name.replace(".nii.gz", f"{suffix}.nii.gz"))
        label(folder / "labelsTr" / name)
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    write_json(folder / "dataset.json", {**DECATHLON, "training": training, "test": ["./imagesTs/c.nii.gz"]})
    return folder


def test_decathlon_folder_or_its_file(tmp_path: Path):
    folder = decathlon(tmp_path / "knee")
    found = read_case_list(folder)
    assert ids(found) == ["a", "b"]
    assert found.task.label_values == (0, 1, 4)
    assert found.task.modality == "MR"
    assert_readable(found)
    assert read_case_list(folder / "dataset.json").cases == found.cases


def test_nnunet_v1_lists_names_without_the_channel(tmp_path: Path):
    found = read_case_list(decathlon(tmp_path, suffix="_0000"))
    assert ids(found) == ["a", "b"]
    assert [path.name for path in found.cases[0].images] == ["a_0000.nii.gz"]
    assert_readable(found)


def test_nnunet_v2_has_one_file_a_channel(tmp_path: Path):
    write_json(tmp_path / "dataset.json", NNUNET)
    for case_id in ("k_1", "k_2"):
        label(tmp_path / "labelsTr" / f"{case_id}.nrrd")
        for channel in range(2):
            image(tmp_path / "imagesTr" / f"{case_id}_{channel:04d}.nrrd")
    (tmp_path / "imagesTr" / "._k_1_0000.nrrd").touch()
    found = read_case_list(tmp_path)
    assert ids(found) == ["k_1", "k_2"]
    assert found.task.channels == ("T1", "T2")
    assert_readable(found, channels=2)


def test_nnunet_v2_names_what_is_missing(tmp_path: Path):
    write_json(tmp_path / "dataset.json", NNUNET)
    image(tmp_path / "imagesTr" / "a_0000.nrrd")
    label(tmp_path / "labelsTr" / "b.nrrd")
    found = read_case_list(tmp_path)
    missing = [path.name for case in found for path in case.files if not path.exists()]
    assert missing == ["a_0001.nrrd", "a.nrrd", "b_0000.nrrd", "b_0001.nrrd"]


def test_nnunet_v2_with_a_table_of_files(tmp_path: Path):
    image(tmp_path / "elsewhere/x.nrrd")
    label(tmp_path / "elsewhere/y.nrrd")
    dataset = {"p7": {"images": ["elsewhere/x.nrrd"], "label": "elsewhere/y.nrrd"}}
    write_json(tmp_path / "dataset.json", {**NNUNET, "dataset": dataset})
    found = read_case_list(tmp_path)
    assert ids(found) == ["p7"]
    assert_readable(found)


def test_monai_datalist(tmp_path: Path):
    for name in "abc":
        image(tmp_path / "i" / f"{name}.nii.gz")
        label(tmp_path / "l" / f"{name}.nii.gz")
    training = [
        {"fold": 0, "image": "i/a.nii.gz", "label": "l/a.nii.gz"},
        {"image": [str(tmp_path / "i/b.nii.gz")], "label": str(tmp_path / "l/b.nii.gz")},
    ]
    validation = [{"image": "i/c.nii.gz", "label": "l/c.nii.gz"}]
    path = write_json(tmp_path / "datalist.json", {"training": training, "validation": validation, "testing": []})
    found = read_case_list(path, task=TASK)
    assert ids(found) == ["a", "b", "c"]
    assert found.task is TASK
    assert_readable(found)
    assert read_case_list(write_json(tmp_path / "plain.json", training)).cases == found.cases[:2]


def test_monai_datalist_of_unlabelled_cases(tmp_path: Path):
    path = write_json(tmp_path / "d.json", {"training": [], "testing": ["x_0000.nii.gz", {"image": "y.nii.gz"}]})
    found = read_case_list(path)
    assert ids(found) == ["x_0000", "y"]
    assert all(case.label is None for case in found)


@pytest.mark.parametrize(("delimiter", "mark"), [(",", ""), (";", "\ufeff"), ("\t", "")])
def test_table(tmp_path: Path, delimiter: str, mark: str):
    image(tmp_path / "a1.nrrd")
    image(tmp_path / "a2.nrrd")
    label(tmp_path / "l.nrrd")
    lines = [["Label", "image_0", "Image_1", "Patient", "ID", "notes"], ["l.nrrd", "a1.nrrd", "a2.nrrd", "p", "k", ""]]
    text = mark + "\r\n".join(delimiter.join(line) for line in [*lines, [""] * 6]) + "\r\n"
    path = tmp_path / "cases.csv"
    path.write_text(text, encoding="utf-8")
    found = read_case_list(path)
    assert [(case.case_id, case.group) for case in found] == [("k", "p")]
    assert_readable(found, channels=2)


def test_table_with_the_image_only(tmp_path: Path):
    path = tmp_path / "cases.csv"
    path.write_text("image\na.nii.gz\nb_0000.nii.gz|b_0001.nii.gz\n", encoding="utf-8")
    found = read_case_list(path)
    assert ids(found) == ["a", "b_0000"]
    assert [len(case.images) for case in found] == [1, 2]
    assert found.cases[0].label is None


def test_folder_pair_matches_names_and_keeps_what_has_no_partner(tmp_path: Path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        image(images / f"{name}.nii.gz")
    label(labels / "a_seg.nrrd")
    label(labels / "c.nii.gz")
    found = read_case_list(tmp_path)
    assert ids(found) == ["a", "b", "c"]
    assert_readable(found.cases[:1], channels=2)
    assert found.cases[1].label == labels / "b.nii.gz"
    assert found.cases[2].images == (images / "c.nii.gz",)
    assert read_case_list(f"{images},{labels}").cases == found.cases
    assert read_folder_pair(images, labels, task=TWO_CHANNELS).cases == found.cases


def test_numbered_cases_are_not_channels_of_one(tmp_path: Path):
    for number in (1, 2, 3):
        image(tmp_path / f"scan_{number:04d}.nrrd")
    assert ids(read_case_list(tmp_path)) == ["scan_0001", "scan_0002", "scan_0003"]
    image(tmp_path / "scan_0000.nrrd")
    assert ids(read_case_list(tmp_path, task=TASK)) == ["scan_0000", "scan_0001", "scan_0002", "scan_0003"]


def test_flat_folder_leaves_segmentations_and_other_files_out(tmp_path: Path):
    image(tmp_path / "a.nrrd")
    label(tmp_path / "a.seg.nrrd")
    (tmp_path / "notes.txt").write_text("hello")
    found = read_case_list(tmp_path)
    assert ids(found) == ["a"]
    assert found.cases[0].label is None


def test_single_image_and_names_with_dots(tmp_path: Path):
    found = read_case_list(image(tmp_path / "patient.2024.nii.gz"))
    assert ids(found) == ["patient.2024"]


def test_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    image(tmp_path / "a.nrrd")
    monkeypatch.chdir(tmp_path)
    assert ids(read_case_list(".")) == ["a"]


def test_dicom_folder_and_folder_of_them(shared_data: Path):
    folder = shared_data / "DicomBrain"
    assert ids(read_case_list(folder)) == ["HippocampusCrop", "T1post"]
    single = read_case_list(folder / "T1post")
    assert single.cases == (Case("T1post", "T1post", (folder / "T1post",)),)
    assert read_image(single.cases[0])[0].shape == (1, 22, 512, 512)


def test_files_and_dicom_folders_lie_side_by_side(shared_data: Path, tmp_path: Path):
    shutil.copytree(shared_data / "DicomBrain" / "HippocampusCrop", tmp_path / "series")
    shutil.copy(shared_data / "Hippocampus" / "imagesTr" / "hippocampus_004.nii.gz", tmp_path)
    (tmp_path / "results").mkdir()
    assert [case.case_id for case in read_case_list(tmp_path)] == ["hippocampus_004", "series"]


def test_dicom_files_with_other_names(shared_data: Path, tmp_path: Path):
    """PACS exports often have no .dcm suffix."""
    folder = tmp_path / "series"
    folder.mkdir()
    for path in (shared_data / "DicomBrain/HippocampusCrop").iterdir():
        shutil.copy(path, folder / f"IM{path.stem}")
    assert ids(read_case_list(folder)) == ["series"]


def test_real_data_sets(shared_data: Path):
    hippocampus = read_case_list(shared_data / "Hippocampus")
    assert len(hippocampus) == 200
    assert hippocampus.task.label_values == (0, 1, 2)
    abdomen = read_case_list(shared_data / "AbdomenMR")
    assert len(abdomen) == 14
    assert abdomen.task.num_classes == 5
    assert abdomen.task.modality == "MR"
    assert all(path.exists() for case in (*hippocampus, *abdomen) for path in case.files)


def test_inline_cases(tmp_path: Path):
    image(tmp_path / "i.nrrd")
    label(tmp_path / "l.nrrd")
    items = [
        {"id": "k", "group": "p", "images": ["i.nrrd"], "label": "l.nrrd"},
        {"image": str(tmp_path / "i.nrrd"), "reference": str(tmp_path / "l.nrrd")},
    ]
    found = cases_from_dicts(items, folder=tmp_path)
    assert [(case.case_id, case.group) for case in found] == [("k", "p"), ("i", "i")]
    assert_readable(found)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (["a"], "Case 1 must be a JSON object"),
        ([{"id": "a"}], "Case 1 names no image"),
        ([{"images": []}], "names no image"),
        ([{"images": [1]}], "names no image"),
        ([{"image": "a.nii", "lable": "b"}], "cannot have 'lable'"),
        ([{"image": "a.nii"}, {"image": "b.nii", "label": ["x"]}], "label of case 2"),
        ([{"image": "a.nii", "id": "../a"}], "cannot be the id"),
        ([{"image": "a.nii", "id": ".."}], "cannot be the id"),
        ([{"image": "a.nii", "id": "a:b"}], "cannot be the id"),
    ],
)
def test_bad_inline_cases_are_refused(items: list, words: str):
    with pytest.raises(ForgettableSegError) as caught:
        cases_from_dicts(items)
    assert caught.value.code is ErrorCode.CASE_LIST_INVALID
    assert words in str(caught.value)


def test_group_pattern(tmp_path: Path):
    for name in ("p1_ed", "p1_es", "p2_ed"):
        image(tmp_path / f"{name}.nrrd")
    found = read_case_list(tmp_path, group_pattern=r"^(p\d)_")
    assert [case.group for case in found] == ["p1", "p1", "p2"]
    assert [case.group for case in read_case_list(tmp_path, group_pattern=r"p\d")] == ["p1", "p1", "p2"]
    with pytest.raises(ForgettableSegError, match="finds nothing in case id 'p1_ed'"):
        read_case_list(tmp_path, group_pattern="x")
    with pytest.raises(ForgettableSegError, match="not a regular expression"):
        read_case_list(tmp_path, group_pattern="(")


@pytest.mark.parametrize(
    ("name", "text", "code", "words"),
    [
        ("missing", None, ErrorCode.FILE_MISSING, "does not exist"),
        ("a.json", "{", ErrorCode.CASE_LIST_INVALID, "cannot be read as JSON"),
        ("a.json", "3", ErrorCode.CASE_LIST_INVALID, "not a list of cases"),
        ("a.json", "[]", ErrorCode.CASE_LIST_INVALID, "lists no cases"),
        ("a.json", '{"training": {"a": 1}}', ErrorCode.CASE_LIST_INVALID, "'training'"),
        ("a.json", '{"training": [3]}', ErrorCode.CASE_LIST_INVALID, "other than cases"),
        ("a.json", '{"file_ending": ".nii.gz", "labels": {"a": 1}}', ErrorCode.FILE_MISSING, "imagesTr"),
        ("a.csv", "name,volume\n1,2\n", ErrorCode.CASE_LIST_INVALID, "no column 'image'"),
        ("a.csv", "id,image\n1,\n", ErrorCode.CASE_LIST_INVALID, "Line 2"),
        ("a.csv", "image\n", ErrorCode.CASE_LIST_INVALID, "holds no case"),
        ("a.csv", "", ErrorCode.CASE_LIST_INVALID, "no column 'image'"),
    ],
)
def test_bad_sources_are_refused(tmp_path: Path, name: str, text: str | None, code: ErrorCode, words: str):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ForgettableSegError) as caught:
        read_case_list(path)
    assert caught.value.code is code
    assert words in str(caught.value)


def test_table_that_is_not_text(tmp_path: Path):
    path = tmp_path / "cases.csv"
    path.write_bytes(b"PK\x03\x04\xff\xfe\xfa")
    with pytest.raises(ForgettableSegError, match="save it as CSV"):
        read_case_list(path)


def test_empty_folder(tmp_path: Path):
    with pytest.raises(ForgettableSegError, match="holds no case"):
        read_case_list(tmp_path)


def test_missing_folder_of_a_pair(tmp_path: Path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ForgettableSegError, match="labels does not exist"):
        read_case_list(f"{tmp_path / 'images'},{tmp_path / 'labels'}")
