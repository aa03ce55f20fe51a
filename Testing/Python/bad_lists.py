"""Rows of bad input: case lists and tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bad_inputs import TASK, Good, Row
from case_volumes import blocks, grid, save


def _listed(name: str, content: Any, names: str, code: str = "CASE_LIST_INVALID", like: str = "") -> Row:
    """A row whose datalist holds this content."""
    return Row(name, code, names, lambda g: g.validate(g.write("list.json", content)), like=like)


def _table(name: str, content: str | bytes, names: str) -> Row:
    """A row whose table holds this content."""
    return Row(name, "CASE_LIST_INVALID", names, lambda g: g.validate(g.write("list.csv", content)))


def _task(name: str, names: str, like: str = "", /, **changes: Any) -> Row:
    """A row whose task differs from a good one."""
    content = {key: value for key, value in {**TASK, **changes}.items() if value != "absent"}
    return Row(name, "TASK_INVALID", names, lambda g: g.validate(g.table(), g.write("bad.json", content)), like=like)


def _class(name: str, names: str, /, **content: Any) -> Row:
    """A row whose task has one class that is wrong."""
    entry = {key: value for key, value in {"name": "liver", "value": 1, **content}.items() if value != "absent"}
    return _task(name, names, classes=[entry])


def _dataset(name: str, names: str, labels: Any, code: str = "TASK_INVALID") -> Row:
    """A row whose dataset.json states these labels."""
    content = {"channel_names": {"0": "T2"}, "labels": labels, "file_ending": ".nii.gz"}
    return Row(name, code, names, lambda g: ["validate", str(g.write("data/dataset.json", content).parent)])


def _folder_of_labels_only(good: Good) -> Path:
    (good.folder / "data" / "images").mkdir(parents=True)
    save(good.folder / "data" / "labels" / "bad.nii.gz", blocks((3, 16, 16)), grid((3, 16, 16)))
    return good.folder / "data"


LISTS = (
    Row("list is missing", "FILE_MISSING", "list.csv does not exist", lambda g: g.validate(g.folder / "list.csv")),
    Row(
        "name too long for a file",
        "FILE_MISSING",
        "x.csv does not exist",
        lambda g: g.validate("x" * 300 + ".csv"),
        like="list is missing",
    ),
    _listed("broken JSON", '[{"image": ', "list.json cannot be read as JSON"),
    _listed("JSON without end", "[" * 100_000, "list.json.*nested"),
    _listed("binary called JSON", b"\xff\xfe\x00\x01", "list.json.*decode"),
    _listed("number in place of a list", "7", "list.json is not a list of cases"),
    _listed("list of numbers", [1, 2], "'training' in .*list.json holds something other than cases"),
    _listed("training is text", {"training": "all"}, "'training' in .*list.json is not a list"),
    _listed("neither list nor data set", {"a": 1}, "list.json lists no cases"),
    _listed("case without an image", [{"label": "l.nii.gz"}], "Case 1 names no image"),
    _listed("image is a number", [{"image": 7}], "Case 1 names no image", like="case without an image"),
    _listed("several labels of a case", [{"image": "a.nii.gz", "label": ["b", "c"]}], "label of case 1 must be"),
    _listed("id twice", [{"id": "a", "image": "b.nii.gz"}, {"id": "a", "image": "c.nii.gz"}], "list.json.*'a' twice"),
    _listed("id that leaves the folder", [{"id": "../a", "image": "b.nii.gz"}], r"'\.\./a' cannot be the id"),
    _listed("id of dots", [{"id": "..", "image": "b.nii.gz"}], r"'\.\.' cannot be", like="id that leaves the folder"),
    _listed("empty list", [], "list.json", like="neither list nor data set"),
    _table("empty table", "", "list.csv has no column 'image'; it has none"),
    _table("table without a header", "a.nii.gz,b.nii.gz\n", "list.csv has no column 'image'; it has a.nii.gz"),
    _table("row without an image", "id,image\na,\nb,\n", "list.csv holds no case|Line 2 of .*list.csv"),
    _table("table in another encoding", "id,image\nä,ü.nii.gz".encode("utf-16"), "list.csv.*UTF-8"),
    _table("field without end", 'id,image\na,"' + "x" * 200_000, "list.csv.*field"),
    _table("table with a header only", "id,image,label\n", "list.csv holds no case"),
    Row("empty folder", "CASE_LIST_INVALID", "out/empty holds no case", lambda g: g.validate(_empty(g))),
    Row(
        "folder without volumes",
        "CASE_LIST_INVALID",
        "run holds",
        lambda g: g.validate(g.folder / "run"),
        like="empty folder",
    ),
    Row(
        "pair of folders, one missing",
        "FILE_MISSING",
        "gone does not exist",
        lambda g: g.validate(f"{g.folder},{g.folder / 'gone'}"),
        like="list is missing",
    ),
    Row(
        "labels without images",
        "FILE_MISSING",
        "images/bad.nii.gz does not exist",
        lambda g: g.segment(_folder_of_labels_only(g)),
        1,
        "missing image",
    ),
    _dataset("data set without images", "imagesTr does not exist", {"liver": 1}, "FILE_MISSING"),
    _dataset("label of several values", "'liver' joins several values", {"liver": [1, 2]}),
    _dataset("ignore label", "ignore label", {"background": 0, "liver": 1, "ignore": 2}),
    _dataset("label without a value", "'liver: one' is neither", {"liver": "one"}),
    _dataset("background only", "no class to segment", {"background": 0}),
    Row(
        "list without a task",
        "TASK_INVALID",
        "cases.csv does not say",
        lambda g: ["train", str(g.table()), "--run", str(g.folder / "run")],
    ),
    Row(
        "training list without labels",
        "CASE_LIST_INVALID",
        "None of the 1 cases in .*cases.csv has a label",
        lambda g: g.train(cases=g.table(label=" ")),
    ),
)

TASKS = (
    Row("task is missing", "FILE_MISSING", "gone.json", lambda g: g.validate(g.table(), g.folder / "gone.json")),
    Row("task is a folder", "FILE_MISSING", "out", lambda g: g.validate(g.table(), g.out), like="task is missing"),
    Row("task is no JSON", "TASK_INVALID", "bad.json.*JSON", lambda g: g.validate(g.table(), g.write("bad.json", "{"))),
    Row(
        "task without end",
        "TASK_INVALID",
        "bad.json.*nested",
        lambda g: g.validate(g.table(), g.write("bad.json", '{"a":' * 100_000)),
    ),
    Row("task is a list", "TASK_INVALID", "JSON object", lambda g: g.validate(g.table(), g.write("bad.json", [1]))),
    _task("task without modality", "lacks modality", modality="absent"),
    _task("task with an unknown entry", "cannot have 'colour'", colour=1),
    _task("task without a name", "no name", name=" "),
    _task("modality is a number", "'abdomen' has no modality", modality=3),
    _task("channels are text", "channels of task 'abdomen' must be a list", channels="T2"),
    _task("no channel", "no image channel", channels=[]),
    _task("channel without a name", "channel without a name", channels=[""]),
    _task("no class", "no class to segment", "background only", classes=[]),
    _task("classes are an object", "classes of the task must be a list", classes={"liver": 1}),
    _task("class is text", "A class must be a JSON object", classes=["liver"]),
    _task("class name twice", "two classes named 'liver'", classes=[{"name": "liver", "value": v} for v in (1, 2)]),
    _task("label value twice", "label value '1'", classes=[{"name": name, "value": 1} for name in "ab"]),
    _task("too many classes", "300 classes", classes=[{"name": f"c{v}", "value": v} for v in range(1, 301)]),
    _class("class without a value", "'name' and a label 'value'", value="absent"),
    _class("class with an unknown entry", "cannot have 'size'", size=1),
    _class("class of value 0", "'liver' uses label value 0", value=0),
    _class("label value is text", "'liver' must be a whole number, not '1'", value="1"),
    _class("label value too large", "'liver' uses label value 70000", value=70000),
    _class("prompt is a number", "prompt of class 'liver'", prompt=5),
    _class("colour out of range", "colour of class 'liver'", color=[0, 0, 256]),
    _class("terminology without a type", "terminology of class 'liver'", terminology={"category": ["a", "b", "c"]}),
    _class(
        "terminology with half a code", "type of class 'liver'", terminology={"category": list("abc"), "type": ["a"]}
    ),
)


def _empty(good: Good) -> Path:
    folder = good.out / "empty"
    folder.mkdir()
    return folder
