"""The classes of labels meet those of a model: fine-tuning, evaluating and auditing by one matcher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from job_inputs import SETTINGS, make_cases, relabelled, run
from synthetic import TASK

from ForgettableSegLib.cases.case_list import read_case_list
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.comparison import comparison_lines

pytestmark = pytest.mark.usefixtures("home")

STILL = {**SETTINGS, "iterations": 1, "learning_rate": 1e-8, "checkpoint_every": 1, "validate_every": 1}


def datalist(folder: Path, labels: dict[str, str], values: dict[int, int], number: int = 6) -> Path:
    """A data set that calls its classes otherwise than the model does, its labels in other values."""
    cases = relabelled(make_cases(folder, number), values)
    entries = [{"id": case["id"], "image": case["images"][0], "label": case["label"]} for case in cases]
    path = folder / "dataset.json"
    path.write_text(json.dumps({"channel_names": {"0": "T1"}, "labels": labels, "training": entries}))
    return path


def finetune(trained, cases: Path, folder: Path, **more: Any) -> tuple[Any, list[dict[str, Any]]]:
    settings = {key: value for key, value in STILL.items() if key not in ("features", "num_heads", "patch_size")}
    start = str(trained[0] / "model")
    return run("finetune", cases=str(cases), model=start, run=str(folder), settings=settings, name="finer", **more)


def logged(events: list[dict[str, Any]]) -> str:
    return "\n".join(event["text"] for event in events if event["event"] in ("log", "warning"))


def test_classes_of_other_names_keep_what_the_start_model_has_learnt(trained, tmp_path: Path) -> None:
    cases = datalist(tmp_path / "cases", {"5": "Balls, bright", "1": "Dark"}, {1: 5, 2: 1})
    result, events = finetune(trained, cases, tmp_path / "run")
    assert result.exit_code == 0, events[-1]
    text = logged(events)
    assert "Matched by name: Balls, bright -> bright ball; by part of the name: Dark -> dark ball." in text
    assert "new weights" not in text
    card = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert Task.from_dict(card["task"]) == TASK, "values of the model's task"
    held_out = result.result["held_out"]
    assert held_out["before"]["mean"] > 0.1
    assert held_out["after"] == pytest.approx(held_out["before"], abs=0.02), "labels are read through the mapping"
    assert held_out["before"] == pytest.approx(card["metrics"]["held_out"]["dice"], abs=0.02)
    line = comparison_lines(held_out)[0]
    assert line.startswith(f"Dice of mean: before {held_out['before']['mean']:.3f}, after ")
    assert line.endswith(" over 1 case")
    assert line in result.text
    again, _ = run("resume", run=str(tmp_path / "run"))
    assert again.result["held_out"] == held_out, "a resumed run reads them the same"


def test_a_new_class_beside_known_ones_is_compared_on_the_known(trained, tmp_path: Path) -> None:
    cases = datalist(tmp_path / "cases", {"1": "ball bright", "2": "glorpus maximus"}, {1: 1, 2: 2})
    result, events = finetune(trained, cases, tmp_path / "run")
    assert result.exit_code == 0, events[-1]
    assert "Matched by name: ball bright -> bright ball. Not matched: glorpus maximus." in logged(events)
    held_out = result.result["held_out"]
    assert set(held_out["before"]) == {"bright ball", "mean of shared classes"}
    assert set(held_out["after"]) == {"bright ball", "glorpus maximus", "mean", "mean of shared classes"}
    assert held_out["after"]["mean of shared classes"] == held_out["after"]["bright ball"]


def test_an_ambiguous_class_is_asked_for_with_the_task_to_write(trained, tmp_path: Path) -> None:
    cases = datalist(tmp_path / "cases", {"1": "ball", "2": "dark thing"}, {1: 1, 2: 2})
    result, events = finetune(trained, cases, tmp_path / "run")
    assert result.exit_code == 2
    assert events[-1]["code"] == "TASK_INVALID"
    assert "ball may be bright ball or dark ball" in events[-1]["text"]
    hint = events[-1]["hint"]
    task = hint[hint.index("{") : hint.rindex("}") + 1]
    assert [each.name for each in Task.from_dict(json.loads(task)).classes] == ["bright ball", "dark ball"]
    result, events = finetune(trained, cases, tmp_path / "run", task=json.loads(task))
    assert result.exit_code == 0, events[-1]
    assert result.result["held_out"]["before"].keys() == result.result["held_out"]["after"].keys()


def test_two_folders_without_a_task_hold_the_start_models_values(trained, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 6)
    for part, key in (("images", "images"), ("labels", "label")):
        (tmp_path / "data" / part).mkdir(parents=True)
        for case in cases:
            source = Path(case[key] if key == "label" else case[key][0])
            (tmp_path / "data" / part / f"{case['id']}.nii.gz").write_bytes(source.read_bytes())
    result, events = finetune(trained, tmp_path / "data", tmp_path / "run")
    assert result.exit_code == 0, events[-1]


@pytest.mark.parametrize(
    ("labels", "how"),
    [
        ({"4": "dark balls", "7": "BRIGHT"}, "by name: dark balls -> dark ball; by part of the name: BRIGHT"),
        ({"4": "", "7": ""}, ""),
    ],
)
def test_evaluate_and_audit_read_labels_by_the_same_matcher(trained, tmp_path: Path, labels: dict, how: str) -> None:
    model = {"model": str(trained[0] / "model"), "device": "cpu"}
    plain = make_cases(tmp_path / "plain", 1)
    if how:
        cases = str(datalist(tmp_path / "cases", labels, {1: 7, 2: 4}, 1))
    else:  # the values alone, as a request carries them
        moved = relabelled(make_cases(tmp_path / "cases", 1), {1: 7, 2: 4})
        cases = [{**case, "label_values": {"7": 1, "4": 2}} for case in moved]
    wanted, _ = run("evaluate", **model, cases=plain, output=str(tmp_path / "a"))
    found, events = run("evaluate", **model, cases=cases, output=str(tmp_path / "b"))
    assert found.result["dice"] == wanted.result["dice"]
    assert how in logged(events)
    tables = []
    for source, name in ((plain, "c"), (cases, "d")):
        audited, _ = run("audit", **model, cases=source, output=str(tmp_path / name))
        assert audited.exit_code == 0
        tables.append(json.loads((tmp_path / name / "summary.json").read_text())["cases"][0]["difficulty"])
    assert tables[0] == tables[1]


def test_references_in_no_value_of_the_task_are_refused(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 2)
    moved = relabelled(cases, {1: 11, 2: 12})
    for part, source in (("mine", cases), ("theirs", moved)):
        (tmp_path / part).mkdir()
        for case in source:
            path = Path(case["label"])
            (tmp_path / part / f"{case['id']}{''.join(path.suffixes)}").write_bytes(path.read_bytes())
    folders = {"predictions": str(tmp_path / "mine"), "references": str(tmp_path / "theirs")}
    result, events = run("evaluate", **folders, task=TASK.to_dict(), output=str(tmp_path / "out"))
    assert result.exit_code == 2
    told = [event["text"] for event in events if event["event"] == "case_failed"]
    assert len(told) == 2
    assert all("11, 12" in text for text in told)


@pytest.mark.parametrize("values", [{"a": 1}, {"1": "b"}, {"1": -1}, [1]])
def test_label_values_of_a_case_must_be_numbers(tmp_path: Path, values: object) -> None:
    cases = [{**case, "label_values": values} for case in make_cases(tmp_path, 1)]
    with pytest.raises(ForgettableSegError, match="label_values of 'ball00' must be an object such as") as caught:
        run("audit", model="any", cases=cases, output=str(tmp_path / "out"))
    assert caught.value.code == ErrorCode.REQUEST_INVALID
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": "a.nii", "label_values": values}]}))
    if values != {"1": -1}:
        with pytest.raises(ForgettableSegError, match="label_values of case 1"):
            read_case_list(tmp_path / "list.json")


HALVES = Task("t", "MR", ("T1",), (SegmentClass("head", 1), SegmentClass("tail", 2)))
SIDES = tuple(f"{side} {each}" for side in ("left", "right") for each in ("head", "tail"))


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ({1: 1, 2: 2, 3: 1, 4: 2}, None, ("head", "tail")),
        ({1: 1, 2: 2, 3: 3, 4: 4}, None, SIDES),
        ({1: 8, 2: 9, 3: 6, 4: 7}, {"L head": 8, "L tail": 9, "R head": 6, "R tail": 7}, SIDES),
        ({1: 5, 2: 6, 3: 5, 4: 6}, {"Head": 5, "Tail": 6}, ("head", "tail")),
    ],
)
def test_a_result_with_sides_is_compared_with_references_with_and_without(
    values: dict[int, int], names: dict[str, int] | None, expected: tuple[str, ...], tmp_path: Path
) -> None:
    labels = np.arange(4 * 5 * 6).reshape(4, 5, 6) % 5
    located = tmp_path / "located" / "a"
    located.mkdir(parents=True)
    sitk.WriteImage(sitk.GetImageFromArray(labels.astype(np.uint8)), str(located / "a_segmentation.nrrd"))
    classes = tuple(SegmentClass(name, value) for value, name in enumerate(SIDES, 1))
    (located / "a_task.json").write_text(json.dumps(replace(HALVES, classes=classes).to_dict()))
    references = tmp_path / "references"
    references.mkdir()
    other = np.array([0, *(values[value] for value in range(1, 5))], np.uint8)[labels]
    sitk.WriteImage(sitk.GetImageFromArray(other), str(references / "a.nrrd"))
    if names is not None:
        entry = {"id": "a", "image": "a.nrrd", "label": "a.nrrd"}
        content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, **names}, "training": [entry]}
        (references / "dataset.json").write_text(json.dumps(content))
    folders = {"predictions": str(tmp_path / "located"), "references": str(references)}
    result, events = run("evaluate", **folders, task=HALVES.to_dict(), output=str(tmp_path / "out"))
    assert result.exit_code == 0, events[-1]
    assert result.result["dice"] == {"mean": 1.0, **dict.fromkeys(expected, 1.0)}
