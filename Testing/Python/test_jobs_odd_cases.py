"""Jobs on cases as people really have them: other label values, odd files, folders without a list, 3D models."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import SimpleITK as sitk
from job_inputs import artifacts, make_cases, relabelled, run, training_arguments
from synthetic import TASK

from ForgettableSegLib.cases.files import read_header

pytestmark = pytest.mark.usefixtures("home")


def test_labels_in_other_values_are_judged_by_the_names_of_their_classes(trained, tmp_path: Path) -> None:
    model, cases = str(trained[0] / "model"), make_cases(tmp_path / "cases", 2)
    task = TASK.to_dict()
    classes = [{**each, "value": value} for each, value in zip(task["classes"], (9, 3), strict=True)]
    others = relabelled(cases, {1: 9, 2: 3})
    common = {"model": model, "device": "cpu"}
    own, _ = run("evaluate", **common, cases=cases, output=str(tmp_path / "own"))
    other, _ = run("evaluate", **common, cases=others, task={**task, "classes": classes}, output=str(tmp_path / "two"))
    assert own.result["dice"]["mean"] > 0
    assert other.result["dice"] == pytest.approx(own.result["dice"])
    _, events = run("evaluate", **common, cases=others, output=str(tmp_path / "three"))
    told = [event for event in events if event["event"] == "case_failed"]
    assert [event["code"] for event in told] == ["CASE_INVALID"] * 2
    strange = {**task, "classes": [{"name": "cube", "value": 5}]}
    _, events = run("evaluate", **common, cases=cases, task=strange, output=str(tmp_path / "four"))
    assert events[-1]["code"] == "TASK_INVALID"
    assert "cube" in events[-1]["text"]


def test_the_samples_tell_where_their_slices_lie_in_the_file(trained) -> None:
    folder, _, arguments = trained
    files = {case["id"]: case["images"][0] for case in arguments["cases"]}
    with (folder / "samples.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows
    for row in rows:
        image = sitk.ReadImage(files[row["case"]])
        place = [float(row[f"{axis}_lps_mm"]) for axis in "xyz"]
        index = image.TransformPhysicalPointToContinuousIndex(place)
        assert index["ijk".index(row["file_axis"])] == pytest.approx(int(row["file_slice"]), abs=0.01)


def test_a_sheared_case_is_segmented_on_its_own_grid_in_any_format(trained, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 2)
    image = sitk.ReadImage(cases[0]["images"][0])
    image.SetDirection((1, 0, 0, 0, 1, 0.3, 0, 0, 0.954))
    sheared = str(tmp_path / "sheared.mha")
    sitk.WriteImage(image, sheared)
    listed = [{"id": "sheared", "images": [sheared]}, {"id": cases[1]["id"], "images": cases[1]["images"]}]
    result, events = run(
        "segment", model=str(trained[0] / "model"), cases=listed, output=str(tmp_path / "out"), file_format=".nii.gz"
    )
    assert result.exit_code == 0, events[-1]
    told = [event["text"] for event in events if event["event"] == "warning" and event.get("case") == "sheared"]
    assert sum("right angles" in text for text in told) == 1
    written = read_header(artifacts(events, "sheared")["segmentation"]).geometry
    assert written.is_same_grid(read_header(Path(sheared)).geometry, 1e-4)


def test_a_folder_of_single_images_is_read_as_the_model_reads_cases(trained, tmp_path: Path) -> None:
    cases = make_cases(tmp_path / "cases", 3)
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, case in enumerate(cases):
        (folder / f"scan_{number:04d}.nii.gz").write_bytes(Path(case["images"][0]).read_bytes())
    result, _ = run("segment", model=str(trained[0] / "model"), input=str(folder), output=str(tmp_path / "out"))
    assert (result.exit_code, result.result["cases"]) == (0, 3)


def test_a_3d_model_is_fine_tuned_without_being_told_that_it_is_one(tmp_path: Path) -> None:
    arguments = training_arguments(tmp_path / "cases", tmp_path / "run", spatial_dims=3, patch_size=[8, 16, 16])
    result, events = run("train", **{**arguments, "settings": {**arguments["settings"], "iterations": 2}})
    assert result.exit_code == 0, events[-1]
    plain = {"iterations": 2, "device": "cpu", "text": "onehot", "batch_size": 2}
    again = {**arguments, "run": str(tmp_path / "again"), "name": "finer", "settings": plain}
    result, events = run("finetune", **again, model=str(tmp_path / "run" / "model"))
    assert result.exit_code == 0, events[-1]
