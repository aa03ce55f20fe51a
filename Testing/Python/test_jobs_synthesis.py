"""Jobs on cases that are label maps alone: a plain folder of them is trained on, and a model is fine-tuned with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from job_inputs import make_cases, run, training_arguments
from synthetic import TASK

from ForgettableSegLib.models.package import ModelPackage

pytestmark = pytest.mark.usefixtures("home")


def test_a_folder_of_label_maps_trains_and_fine_tunes_a_model(tmp_path: Path) -> None:
    """Both jobs judge the same held-out image, and the model holds no name of a case."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for case in make_cases(tmp_path / "cases"):
        shutil.copy(case["label"], folder / f"{case['id']}.nii.gz")
    task = tmp_path / "task.json"
    task.write_text(json.dumps(TASK.to_dict()), encoding="utf-8")
    arguments = training_arguments(tmp_path / "unused", tmp_path / "run")
    arguments |= {"cases": str(folder), "task": str(task)}
    arguments["settings"] = {**arguments["settings"], "synthesis": "random"}
    result, events = run("train", **arguments)
    assert result.exit_code == 0, events[-1]
    model = ModelPackage.read(tmp_path / "run" / "model")
    assert model.card["training"]["synthesis"] == "random"
    assert "ball0" not in json.dumps(model.card)
    finer = {**arguments, "run": str(tmp_path / "finer"), "model": str(tmp_path / "run" / "model"), "name": "finer"}
    result, events = run("finetune", **finer)
    assert result.exit_code == 0, events[-1]
    assert result.result["held_out"]["before"] == pytest.approx(model.card["metrics"]["held_out"]["dice"])


def test_a_folder_given_twice_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """Without the setting, images that are their own labels are a slip."""
    for case in make_cases(tmp_path / "maps"):
        Path(case["images"][0]).unlink()
    arguments = training_arguments(tmp_path / "unused", tmp_path / "run")
    arguments |= {"cases": f"{tmp_path / 'maps'},{tmp_path / 'maps'}"}
    result, events = run("train", **arguments)
    assert result.exit_code == 2
    assert "no image but its own label map" in json.dumps(events[-1])
