"""Tasks survive JSON, and say in a sentence what is wrong with them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

LIVER = {
    "name": "liver",
    "value": 3,
    "prompt": "healthy liver",
    "color": [221, 130, 101],
    "terminology": {
        "category": ["SCT", "123037004", "Anatomical Structure"],
        "type": ["SCT", "10200004", "Liver"],
        "modifier": None,
    },
}
TASK = {"name": "abdomen", "modality": "CT", "channels": ["CT"], "classes": [LIVER, {"name": "spleen", "value": 1}]}


def changed(**changes: object) -> dict:
    return {**TASK, **changes}


def with_class(**changes: object) -> dict:
    return changed(classes=[{**LIVER, **changes}])


def test_json_round_trip_keeps_everything():
    task = Task.from_dict(TASK)
    again = Task.from_dict(json.loads(json.dumps(task.to_dict())))
    assert again == task
    assert again.classes[0].to_dict() == LIVER
    assert hash(again) == hash(task)


def test_class_order_gives_indices_and_values():
    task = Task.from_dict(TASK)
    assert task.num_classes == 3
    assert task.label_values == (0, 3, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(name=" "), "task has no name"),
        (changed(modality=""), "has no modality"),
        (changed(channels=[]), "no image channel"),
        (changed(channels="CT"), "must be a list"),
        (changed(channels=["T1", ""]), "channel without a name"),
        (changed(classes=[]), "no class"),
        (changed(classes=[LIVER, {**LIVER, "value": 9, "name": "Liver "}]), "two classes named 'liver'"),
        (changed(classes=[LIVER, {**LIVER, "name": "spleen"}]), "two classes with label value '3'"),
        (changed(classes=[{"name": f"c{n}", "value": n} for n in range(1, 256)]), "at most 254"),
        (changed(classes=["liver"]), "must be a JSON object"),
        (changed(clases=[]), "cannot have 'clases'"),
        ({"name": "x"}, "lacks modality, channels, classes"),
        ([TASK], "must be a JSON object"),
        (with_class(value=0), "background"),
        (with_class(value=-2), "use 1 to 65535"),
        (with_class(value=70000), "use 1 to 65535"),
        (with_class(value=1.5), "whole number"),
        (with_class(value=True), "whole number"),
        (with_class(name=""), "has no name"),
        (with_class(prompt=None), "must be text"),
        (with_class(color=[256, 0, 0]), "0 to 255"),
        (with_class(color=[1, 2]), "0 to 255"),
        (with_class(colour=[1, 2, 3]), "cannot have 'colour'"),
        (with_class(terminology={"type": ["SCT", "1", "x"]}), "category and a type"),
        (with_class(terminology={**LIVER["terminology"], "type": ["SCT", "1"]}), "a scheme, a code and a meaning"),
        (changed(classes=[{"name": "liver"}]), "'value'"),
    ],
)
def test_every_defect_has_its_sentence(content: dict, words: str):
    with pytest.raises(ForgettableSegError) as caught:
        Task.from_dict(content)
    assert caught.value.code is ErrorCode.TASK_INVALID
    assert words in str(caught.value)
    assert str(caught.value).endswith(".")


def test_labels_of_decathlon_and_nnunet_give_the_same_task():
    decathlon = {"name": "x", "modality": {"0": "MRI"}, "labels": {"0": "background", "2": "b", "1": "a"}}
    nnunet = {"name": "x", "channel_names": {"0": "MRI"}, "labels": {"background": 0, "b": 2, "a": 1}}
    task = Task.from_dataset(decathlon)
    assert task == Task.from_dataset(nnunet)
    assert task.classes == (SegmentClass("a", 1), SegmentClass("b", 2))
    assert task.modality == "MR"


def test_channels_are_in_numerical_order():
    names = {str(index): f"c{index}" for index in range(12)}
    shuffled = dict(sorted(names.items()))
    task = Task.from_dataset({"channel_names": shuffled, "labels": {"a": 1}}, name="x")
    assert task.channels == tuple(names.values())


@pytest.mark.parametrize(
    ("channels", "modality"),
    [(["CT"], "CT"), (["FLAIR", "T1w"], "MR"), (["T2", "ADC"], "MR"), (["US"], "US"), (["CT", "PET"], "other")],
)
def test_modality_follows_from_channel_names(channels: list[str], modality: str):
    content = {"channel_names": dict(enumerate(channels)), "labels": {"a": 1}}
    assert Task.from_dataset(content, name="x").modality == modality


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"whole tumour": [1, 2]}, "joins several values"),
        ({"a": 1, "ignore": 2}, "ignore label"),
        ({"a": "b"}, "neither a value"),
        (None, "states no labels"),
        ({"0": "background"}, "no class"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(labels: object, words: str):
    with pytest.raises(ForgettableSegError, match=words):
        Task.from_dataset({"labels": labels, "modality": {"0": "CT"}}, name="x")


def test_importing_tasks_loads_nothing_heavy():
    code = (
        "import sys, ForgettableSegLib.cases.task; print({'torch', 'SimpleITK', 'numpy', 'monai'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )
