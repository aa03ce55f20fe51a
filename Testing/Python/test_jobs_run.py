"""Every job on small real files: what it writes, what it tells, and what it leaves alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from job_inputs import artifacts, kinds, make_cases, relabelled, run
from synthetic import TASK

from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.jobs import inputs
from ForgettableSegLib.models.package import ModelPackage

pytestmark = pytest.mark.usefixtures("home")


def test_a_training_tells_what_the_panel_plots_and_exports_a_model(trained) -> None:
    folder, events, _ = trained
    assert kinds(events)[0] == "started"
    assert kinds(events)[-1] == "done"
    metrics = {event["name"]: event["values"] for event in events if event["event"] == "metric"}
    assert {"total", "main"} <= set(metrics["loss"])
    assert {"T1", "T2", "T3", "T4", "score"} == set(metrics["scores"])
    assert {"size", "capacity", "replays", "admitted", "suspects"} == set(metrics["bank"])
    assert {"mean", "bright ball", "dark ball"} == set(metrics["validation"])
    assert {"mean", "bright ball", "dark ball"} == set(metrics["held_out"]["after"])
    assert artifacts(events)["model"] == folder / "model"
    card = json.loads((folder / "model" / "model.json").read_text())
    assert card["name"] == "balls"
    assert card["metrics"]["held_out"]["dice"] == pytest.approx(metrics["held_out"]["after"])
    assert "ball0" not in json.dumps(card)
    result = events[-1]["result"]
    assert result["model"] == str(folder / "model")
    assert result["held_out"]["before"] == {}


def test_a_second_training_in_the_same_folder_is_refused_and_the_first_stays(trained) -> None:
    folder, _, arguments = trained
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result, events = run("train", **arguments)
    assert result.exit_code == 2
    assert events[-1]["code"] == "RUN_MISMATCH"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_fine_tuning_compares_with_the_model_it_started_from(trained, tmp_path: Path) -> None:
    folder, _, arguments = trained
    changed = {**arguments, "run": str(tmp_path / "run"), "model": str(folder / "model"), "name": "finer balls"}
    result, events = run("finetune", **changed)
    assert result.exit_code == 0, events[-1]
    held_out = result.result["held_out"]
    assert set(held_out["before"]) == set(held_out["after"]) == {"mean", "bright ball", "dark ball"}
    before = json.loads((folder / "model" / "model.json").read_text())["metrics"]["held_out"]["dice"]
    assert held_out["before"] == pytest.approx(before)  # the same held-out case, segmented by the same model


def test_a_start_that_is_better_stays(trained, tmp_path: Path) -> None:
    folder, _, arguments = trained
    spoilt = {**arguments["settings"], "optimizer": "sgd", "learning_rate": 1.0, "weight_decay": 1.0, "momentum": 0.0}
    spoilt |= {"iterations": 4, "validate_every": 2, "weight_average": 0.0}  # the first update sets all weights to zero
    changed = {**arguments, "run": str(tmp_path / "run"), "model": str(folder / "model"), "name": "finer balls"}
    result, events = run("finetune", **{**changed, "settings": spoilt})
    assert result.exit_code == 0, events[-1]
    validated = [event for event in events if event["event"] == "metric" and event["name"] == "validation"]
    assert [event["iteration"] for event in validated] == [0, 2, 4]
    assert max(event["values"]["mean"] for event in validated[1:]) <= validated[0]["values"]["mean"]
    before, after = (ModelPackage.read(path / "model") for path in (folder, tmp_path / "run"))
    weights = after.network().state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in before.network().state_dict().items())
    provenance = after.card["provenance"]
    assert (provenance["best_iteration"], provenance["kept_start"], provenance["started_from"]) == (0, True, "balls")
    assert events[-1]["result"]["kept_start"] is True
    assert "unchanged" in events[-1]["text"]
    assert any("No iteration validated better than balls" in e["text"] for e in events if e["event"] == "warning")
    assert result.result["held_out"]["after"] == pytest.approx(result.result["held_out"]["before"])


@pytest.fixture(scope="module")
def segmented(trained, tmp_path_factory: pytest.TempPathFactory):
    """Output folder, events and cases of a segmentation in which one case of three is damaged."""
    folder = tmp_path_factory.mktemp("segmented")
    cases = make_cases(folder / "cases", 3)
    Path(cases[1]["images"][0]).write_bytes(b"not an image")
    result, events = run(
        "segment", model=str(trained[0] / "model"), cases=cases, output=str(folder / "out"), probabilities=True
    )
    assert result.exit_code == 1
    return folder / "out", events, cases


def test_a_damaged_case_is_told_of_and_the_others_are_segmented(segmented) -> None:
    output, events, cases = segmented
    failed = [event for event in events if event["event"] == "case_failed"]
    assert [event["case"] for event in failed] == [cases[1]["id"]]
    assert failed[0]["code"] == "FILE_UNREADABLE"
    assert cases[1]["images"][0] in failed[0]["text"]
    assert "Traceback" in (output / "log.txt").read_text()
    assert not (output / cases[1]["id"]).exists()
    assert events[-1]["exit_code"] == 1
    assert events[-1]["result"]["failed"] == [cases[1]["id"]]


def test_segmentation_and_maps_lie_on_the_grid_of_the_image(segmented) -> None:
    _, events, cases = segmented
    image = sitk.ReadImage(cases[0]["images"][0])
    found = artifacts(events, cases[0]["id"])
    assert set(found) == {"segmentation", "confidence", "prototype_ratio", "probabilities", "review", "task"}
    for kind in set(found) - {"review", "task"}:
        volume = sitk.ReadImage(str(found[kind]))
        assert volume.GetSize() == image.GetSize()
        assert volume.GetSpacing() == image.GetSpacing()
        assert volume.GetOrigin() == image.GetOrigin()
        assert volume.GetDirection() == image.GetDirection()
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(found["segmentation"])))
    probabilities = sitk.GetArrayFromImage(sitk.ReadImage(str(found["probabilities"])))
    # What is not the largest piece of its class may be taken away; nothing else may differ.
    assert np.array_equal(labels[labels > 0], probabilities.argmax(-1)[labels > 0])
    assert labels.any()


def test_the_summary_holds_a_row_a_case(segmented) -> None:
    output, events, cases = segmented
    rows = list(csv.DictReader((output / "summary.csv").open(encoding="utf-8")))
    assert [(row["case"], row["status"]) for row in rows] == list(
        zip([case["id"] for case in cases], ["done", "failed", "done"], strict=True)
    )
    content = json.loads((output / "summary.json").read_text())
    assert content["cases"][0]["bright ball ml"] > 0
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(artifacts(events, cases[0]["id"])["segmentation"])))
    voxel_ml = np.prod(sitk.ReadImage(cases[0]["images"][0]).GetSpacing()) / 1000
    assert content["cases"][0]["bright ball ml"] == pytest.approx((labels == 1).sum() * voxel_ml, abs=1e-3)
    assert "percentile" in content["cases"][0]


def test_nothing_unfinished_is_left_and_no_input_is_touched(segmented) -> None:
    output, _, cases = segmented
    assert not [path for path in output.rglob(".*")]
    inputs_folder = Path(cases[0]["images"][0]).parent
    assert {path.name.split(".")[0].removesuffix("_label") for path in inputs_folder.iterdir()} == {
        case["id"] for case in cases
    }


def test_a_second_segmentation_replaces_the_first_and_what_no_longer_holds(trained, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 1)
    model, output = str(trained[0] / "model"), str(tmp_path / "out")
    run("segment", model=model, cases=cases, output=output)
    run("segment", model=model, cases=cases, output=output, heatmap=False, file_format=".nii.gz")
    names = sorted(path.name for path in (tmp_path / "out" / "ball00").iterdir())
    assert names == ["ball00_segmentation.nii.gz", "ball00_task.json"]


def test_a_failing_second_segmentation_leaves_the_first(trained, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 1)
    arguments = {"model": str(trained[0] / "model"), "cases": cases, "output": str(tmp_path / "out")}
    run("segment", **arguments)
    folder = tmp_path / "out" / "ball00"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    Path(cases[0]["images"][0]).write_bytes(b"damaged now")
    result, _ = run("segment", **arguments)
    assert result.exit_code == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_input_is_never_overwritten(trained, tmp_path: Path) -> None:
    case = make_cases(tmp_path / "cases", 1)[0]
    own = tmp_path / "out" / "a" / "a_segmentation.nii.gz"
    own.parent.mkdir(parents=True)
    own.write_bytes(Path(case["images"][0]).read_bytes())
    before = own.read_bytes()
    result, events = run(
        "segment",
        model=str(trained[0] / "model"),
        cases=[{"id": "a", "images": [str(own)]}],
        output=str(tmp_path / "out"),
        file_format=".nii.gz",
    )
    assert result.exit_code == 1
    assert "is an input" in next(event["text"] for event in events if event["event"] == "case_failed")
    assert own.read_bytes() == before


@pytest.mark.parametrize("form", ["file", "folder", "list"])
def test_segment_takes_a_file_a_folder_or_a_list(trained, tmp_path: Path, form: str) -> None:
    case = make_cases(tmp_path / "cases", 1)[0]
    Path(case["label"]).unlink()
    table = tmp_path / "list.csv"
    table.write_text(f"id,image\nball00,{case['images'][0]}\n")
    source = {"file": case["images"][0], "folder": str(tmp_path / "cases"), "list": str(table)}[form]
    result, events = run("segment", model=str(trained[0] / "model"), input=source, output=str(tmp_path / "out"))
    assert result.exit_code == 0, events[-1]
    assert (tmp_path / "out" / "ball00" / "ball00_segmentation.nrrd").is_file()


def test_the_region_limits_the_segmentation(trained, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 1)
    low, high = [2, 2, 1], [12, 16, 5]
    _, events = run(
        "segment", model=str(trained[0] / "model"), cases=cases, output=str(tmp_path / "out"), region=[low, high]
    )
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(artifacts(events, "ball00")["segmentation"])))
    inside = labels[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    assert inside.sum() > 0
    assert labels.sum() == inside.sum()


def test_a_model_is_loaded_once_until_its_files_change(trained, tmp_path: Path) -> None:
    model = tmp_path / "model.zip"
    run("models", action="export", name=str(trained[0] / "model"), path=str(model))
    first = inputs.load_predictor(str(model), "cpu")
    assert inputs.load_predictor(str(model), "cpu") is first
    model.unlink()
    run("models", action="export", name=str(trained[0] / "model"), path=str(model))
    assert inputs.load_predictor(str(model), "cpu") is first  # the same bytes
    others = [tmp_path / f"{number}.zip" for number in range(inputs.MODELS_KEPT)]
    for other in others:
        other.write_bytes(model.read_bytes())
        inputs.load_predictor(str(other), "cpu")
    assert inputs.load_predictor(str(model), "cpu") is not first  # pushed out by the others
    model.write_bytes(b"damaged")
    result, events = run("segment", model=str(model), input=str(tmp_path), output=str(tmp_path / "out"))
    assert result.exit_code == 2
    assert events[-1]["event"] == "failed"


def test_an_audit_writes_the_four_terms_and_their_sum(trained, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 2)
    del cases[1]["label"]
    result, events = run("audit", model=str(trained[0] / "model"), cases=cases, output=str(tmp_path / "out"))
    assert result.exit_code == 1  # the case without a label
    found = artifacts(events, cases[0]["id"])
    assert set(found) == {"T1", "T2", "T3", "T4", "score", "review"}
    maps = {kind: sitk.GetArrayFromImage(sitk.ReadImage(str(found[kind]))) for kind in set(found) - {"review"}}
    assert np.allclose(maps["score"], maps["T1"] + maps["T2"] + maps["T3"] + maps["T4"], atol=1e-4)
    review = json.loads(found["review"].read_text())
    assert review["channels"] == ["T1", "T2", "T3", "T4", "score"]


def test_label_maps_equal_to_their_references_are_perfect(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 2)
    folder = tmp_path / "labels"
    folder.mkdir()
    for case in cases:
        (folder / f"{case['id']}.nii.gz").write_bytes(Path(case["label"]).read_bytes())
    result, events = run(
        "evaluate", predictions=str(folder), references=str(folder), compare=str(folder), output=str(tmp_path / "out")
    )
    assert result.exit_code == 0
    assert result.result["dice"] == {"mean": 1.0, "label 1": 1.0, "label 2": 1.0}
    assert "Wilcoxon" in result.text
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv", ".json"}
    assert kinds(events).count("artifact") == 3


def test_a_missing_prediction_is_a_failed_case(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 2)
    table = tmp_path / "list.csv"
    rows = [f"{case['id']},{case['images'][0]},{case['label']}" for case in cases]
    table.write_text("\n".join(["id,image,label", *rows]))
    folder = tmp_path / "predicted"
    folder.mkdir()
    (folder / "ball00.nii.gz").write_bytes(Path(cases[0]["label"]).read_bytes())
    result, events = run(
        "evaluate", predictions=str(folder), references=str(table), task=TASK.to_dict(), output=str(tmp_path / "out")
    )
    assert result.exit_code == 1
    assert "ball01" in next(event["text"] for event in events if event["event"] == "case_failed")
    assert result.result["dice"]["bright ball"] == 1.0


def test_evaluating_a_model_equals_evaluating_what_it_wrote(trained, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 2)
    model = str(trained[0] / "model")
    run("segment", model=model, cases=cases, output=str(tmp_path / "segmented"))
    table = tmp_path / "list.csv"
    rows = [f"{case['id']},{case['images'][0]},{case['label']}" for case in cases]
    table.write_text("\n".join(["id,image,label", *rows]))
    files, _ = run(
        "evaluate",
        predictions=str(tmp_path / "segmented"),
        references=str(table),
        task=TASK.to_dict(),
        output=str(tmp_path / "a"),
    )
    direct, _ = run("evaluate", model=model, cases=cases, output=str(tmp_path / "b"))
    assert files.result["dice"] == direct.result["dice"]


def test_validation_sends_a_finding_a_defect(tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 2)
    Path(cases[1]["label"]).unlink()
    result, events = run("validate", cases=cases, task=TASK.to_dict())
    findings = [event for event in events if event["event"] == "finding"]
    assert result.exit_code == 1
    assert result.result["errors"] == 1
    assert [(event["severity"], event["case"]) for event in findings] == [("error", cases[1]["id"])]
    assert cases[1]["label"] in findings[0]["text"]


def test_cases_without_a_task_are_listed_with_the_values_to_be_named(tmp_path: Path) -> None:
    cases = make_cases(tmp_path, 2)
    result, _ = run("validate", cases=cases)
    assert result.exit_code == 0
    assert result.result["task"] is None
    labels = [sitk.GetArrayFromImage(sitk.ReadImage(case["label"])) for case in cases]
    assert result.result["values"] == [
        {"value": value, "voxels": sum(int((label == value).sum()) for label in labels), "cases": 2} for value in (1, 2)
    ]
    task = result.text[result.text.index("{") :]
    assert [each.value for each in Task.from_dict(json.loads(task)).classes] == [1, 2]


def test_validation_prints_what_the_cases_hold(tmp_path: Path) -> None:
    cases = make_cases(tmp_path, 2)
    result, _ = run("validate", cases=cases, task=TASK.to_dict())
    head, first, *_, last = result.text.splitlines()
    assert head.split()[:3] == ["case", "size", "spacing"]
    assert "bright ball" in head
    image = sitk.ReadImage(cases[0]["label"])
    voxels = int((sitk.GetArrayFromImage(image) == 1).sum())
    assert f"{voxels} = {voxels * np.prod(image.GetSpacing()) / 1000:.3g} ml" in first
    assert " x ".join(map(str, image.GetSize())) in first
    assert last == "2 cases: 0 errors, 0 warnings."


def test_validation_for_a_model_matches_its_classes(trained, tmp_path: Path) -> None:
    cases = make_cases(tmp_path, 2)
    model = str(trained[0] / "model")
    plain, _ = run("validate", cases=cases, model=model)
    assert plain.result["task"] == TASK.to_dict(), "the start model's task holds"
    moved = relabelled(cases, {1: 2, 2: 1})
    entries = [{"id": each["id"], "image": each["images"][0], "label": each["label"]} for each in moved]
    labels = {"1": "Dark", "2": "Bright"}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "modality": "T1", "training": entries}))
    found, events = run("validate", cases=str(tmp_path / "dataset.json"), model=model)
    assert [each["label_values"] for each in found.result["case_list"]] == [{"1": 2, "2": 1}] * 2
    assert found.result["values"] == plain.result["values"]
    assert any("Matched by part of the name" in event["text"] for event in events if event["event"] == "log")


def test_models_are_installed_listed_shown_exported_and_removed(trained, tmp_path: Path) -> None:
    installed, _ = run("models", action="install", path=str(trained[0] / "model"))
    assert installed.result["model"]["name"] == "balls"
    listed, _ = run("models", action="list")
    assert "balls" in [model["name"] for model in listed.result["models"]]
    shown, _ = run("models", action="show", name="balls")
    assert shown.result["model"]["card"]["task"]["name"] == "balls"
    exported, events = run("models", action="export", name="balls", path=str(tmp_path / "balls.zip"))
    assert artifacts(events)["model"] == tmp_path / "balls.zip"
    assert exported.exit_code == 0
    removed, _ = run("models", action="remove", name="balls")
    assert removed.result["bytes_freed"] > 0
    gone, events = run("models", action="show", name="balls")
    assert gone.exit_code == 2
    assert events[-1]["code"] == "MODEL_MISSING"


@pytest.mark.parametrize(
    ("job", "arguments", "code"),
    [
        ("segment", {"model": "no such", "input": "{cases}", "output": "{out}"}, "MODEL_MISSING"),
        ("segment", {"model": "{model}", "input": "{out}", "output": "{out}"}, "FILE_MISSING"),
        ("segment", {"model": "{model}", "input": "{cases}", "output": "{file}"}, "OUTPUT_UNWRITABLE"),
        (
            "segment",
            {"model": "{model}", "input": "{cases}", "output": "{out}", "device": "cuda:9"},
            "DEVICE_UNAVAILABLE",
        ),
        ("segment", {"model": "{file}", "input": "{cases}", "output": "{out}"}, "MODEL_INVALID"),
        ("train", {"cases": "{cases}", "run": "{out}", "settings": {"rho": 7}}, "SETTING_INVALID"),
        ("train", {"cases": "{cases}", "run": "{out}", "settings": {"roh": 1}}, "SETTING_INVALID"),
        ("train", {"cases": "{cases}", "run": "{out}", "name": "../x"}, "REQUEST_INVALID"),
        ("train", {"cases": "{cases}", "run": "{out}", "task": "{out}"}, "FILE_MISSING"),
        ("train", {"cases": "{cases}", "run": "{out}", "task": "{file}"}, "TASK_INVALID"),
        ("train", {"cases": "{cases}", "run": "{file}", "task": TASK.to_dict()}, "OUTPUT_UNWRITABLE"),
        ("train", {"cases": "{cases}", "run": "{out}"}, "TASK_INVALID"),
        ("resume", {"run": "{out}"}, "RUN_MISMATCH"),
        ("evaluate", {"predictions": "{out}", "references": "{cases}", "output": "{out}"}, "FILE_MISSING"),
        ("models", {"action": "install", "path": "{file}"}, "MODEL_INVALID"),
        ("check", {"device": "cuda:99"}, "DEVICE_UNAVAILABLE"),
    ],
)
def test_a_job_that_cannot_start_says_why(trained, tmp_path: Path, job: str, arguments: dict, code: str) -> None:
    file = tmp_path / "file"
    file.write_text("no")
    make_cases(tmp_path / "cases", 1)
    places = {"cases": tmp_path / "cases", "out": tmp_path / "out", "file": file, "model": trained[0] / "model"}
    filled = {name: value.format(**places) if isinstance(value, str) else value for name, value in arguments.items()}
    result, events = run(job, **filled)
    assert result.exit_code == 2
    assert kinds(events)[-1] == "failed"
    assert events[-1]["code"] == code
    assert "Traceback" not in events[-1]["text"]
    assert file.read_text() == "no"
