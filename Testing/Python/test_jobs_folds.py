"""Cross-validation: every case held out once, the average exported, and a run that was cut off goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from job_inputs import artifacts, run, training_arguments

from ForgettableSegLib.inference.predictor import Predictor
from ForgettableSegLib.jobs.job import JobContext
from ForgettableSegLib.jobs.requests import make_request
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.training.config import RunConfig
from ForgettableSegLib.worker.runner import run_job

pytestmark = pytest.mark.usefixtures("home")


def _stopped_in_the_second_fold(arguments: dict[str, Any]) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["phase"] == "train folds" and event["step"] > 1.4:
            context.cancel()

    context = JobContext(id="1", job="train", sink=stop)
    assert run_job(make_request("train", arguments), context).exit_code == 130


def test_folds_are_trained_resumed_averaged_and_reported(tmp_path: Path) -> None:
    arguments = {
        **training_arguments(tmp_path / "cases", tmp_path / "run", iterations=4, checkpoint_every=1),
        "folds": 2,
    }
    _stopped_in_the_second_fold(arguments)
    first = tmp_path / "run" / "fold1" / "model" / "model.json"
    before = first.stat().st_mtime_ns
    assert not (tmp_path / "run" / "fold2" / "model").exists()
    result, events = run("train", **arguments)
    assert result.exit_code == 0, events[-1]
    assert first.stat().st_mtime_ns == before, "what is done is not done again"
    assert "Resumed at iteration" in (tmp_path / "run" / "fold2" / "log.jsonl").read_text()

    configs = [RunConfig.read(tmp_path / "run" / f"fold{number}") for number in (1, 2)]
    held_out = [set(config.split.test) for config in configs]
    assert held_out[0].isdisjoint(held_out[1])
    assert held_out[0] | held_out[1] == {case["id"] for case in arguments["cases"]}
    assert all(
        not held & {*config.split.train, *config.split.validation}
        for held, config in zip(held_out, configs, strict=False)
    )

    package = ModelPackage.read(artifacts(events)["model"])
    members = [ModelPackage.read(tmp_path / "run" / f"fold{number}" / "model") for number in (1, 2)]
    image = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = sum(member.network()(image) for member in members) / 2
        torch.testing.assert_close(package.network()(image), expected)
    assert set(package.calibration) == set(members[0].calibration)
    measures = package.card["metrics"]["held_out"]
    assert (measures["count"], measures["folds"]) == (6, 2)
    assert package.card["field_of_view"]
    kept = [set(each.card.get("keep_largest", ())) for each in (package, *members)]
    assert kept[0] == kept[1] & kept[2]
    found = Predictor(package).segment_case(configs[0].cases[0])
    assert found.labels.shape == (6, 24, 20)
    assert set(found.difficulty) == {"confidence", "prototype_ratio"}, "calibrated by the members' own held-out cases"

    with (tmp_path / "run" / "cross_validation" / "folds.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["case"]: int(row["fold"]) - 1 for row in rows} == {
        case: number for number, ids in enumerate(held_out) for case in ids
    }
    dice = [float(row["bright ball"]) for row in rows]
    assert sum(dice) / 6 == pytest.approx(measures["dice"]["bright ball"], abs=1e-4)
    assert "Fold 2, " in events[-1]["text"]
    assert "ball0" not in json.dumps(package.card)


def test_other_cases_or_settings_are_not_taken_for_the_same_folds(tmp_path: Path) -> None:
    arguments = {**training_arguments(tmp_path / "cases", tmp_path / "run"), "folds": 2}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "folds.json").write_text(json.dumps({"settings": {}, "splits": []}))
    _, events = run("train", **arguments)
    assert events[-1]["code"] == "RUN_MISMATCH"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"folds": 1}, "CASE_LIST_INVALID"),
        ({"folds": 7}, "CASE_LIST_INVALID"),
        ({"folds": 2, "settings": {"score_features": "penultimate"}}, "SETTING_INVALID"),
    ],
)
def test_what_cannot_be_averaged_is_refused_before_anything_is_trained(
    tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    arguments = {**training_arguments(tmp_path / "cases", tmp_path / "run"), **changes}
    events: list[dict[str, Any]] = []
    run_job(make_request("train", arguments), JobContext(id="1", job="train", sink=events.append))
    assert events[-1]["code"] == code
    assert not (tmp_path / "run" / "fold1").exists()
