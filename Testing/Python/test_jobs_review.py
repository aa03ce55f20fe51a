"""The jobs of the review: what was forgotten, which labels are probably wrong, what to label next."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from job_inputs import artifacts, make_cases, run, training_arguments
from synthetic import TASK

from ForgettableSegLib.cases.case_list import cases_from_dicts
from ForgettableSegLib.cases.preprocessing import plan_preprocessing
from ForgettableSegLib.cases.reviews import REVIEW_FILE, Decision, Reviews, label_key
from ForgettableSegLib.inference.judging import judge_case
from ForgettableSegLib.inference.next_cases import spread_out
from ForgettableSegLib.inference.run import Watch


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run of seconds that looked at all its cases, and its cases."""
    folder = tmp_path_factory.mktemp("review")
    arguments = training_arguments(folder / "cases", folder / "run", dynamics_share=1)
    result, events = run("train", **arguments)
    assert result.exit_code == 0, events
    return SimpleNamespace(folder=folder, run=folder / "run", model=folder / "run" / "model", cases=arguments["cases"])


def test_forgetting_writes_tables_and_one_report_that_needs_nothing_else(
    trained: SimpleNamespace, tmp_path: Path
) -> None:
    result, events = run("forgetting", run=str(trained.run), output=str(tmp_path))
    assert result.exit_code == 0, events
    content = json.loads((tmp_path / "forgetting.json").read_text(encoding="utf-8"))
    assert content["schema"] == 1
    assert sum(content["groups"].values()) == len(content["samples"]) == len(_table(tmp_path / "forgetting.csv")) > 20
    assert result.result["groups"] == content["groups"]
    page = (tmp_path / "forgetting.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert page.count("data:image/png;base64,") == page.count("<img") > 0
    assert "http" not in page
    run("forgetting", run=str(trained.run), output=str(tmp_path), images=False)
    assert "<img" not in (tmp_path / "forgetting.html").read_text(encoding="utf-8")


def test_forgetting_of_a_run_without_looks_says_what_to_do(trained: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("config.json", "split.json"):
        (tmp_path / name).write_bytes((trained.run / name).read_bytes())
    result, events = run("forgetting", run=str(tmp_path), output=str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "trained without looks" in events[-1]["text"]


def test_suspects_of_a_run_are_ranked_and_what_was_decided_is_not_listed_again(
    trained: SimpleNamespace, tmp_path: Path
) -> None:
    result, events = run("suspects", run=str(trained.run), output=str(tmp_path / "out"))
    assert result.exit_code == 0, events
    assert any("learnt by heart" in event.get("text", "") for event in events if event["event"] == "warning")
    content = json.loads(Path(result.result["suspects"]).read_text(encoding="utf-8"))
    scores = [row["score"] for row in content["slices"]]
    assert content["schema"] == 1
    assert scores == sorted(scores, reverse=True)
    assert {row["judge"] for row in content["cases"]} == {"held out", "learnt from it"}
    assert len(content["cases"]) == len(trained.cases)
    page = artifacts(events)["report"].read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") > 0
    found = sitk.ReadImage(content["cases"][0]["predicted"])
    assert found.GetSize() == sitk.ReadImage(content["cases"][0]["label"]).GetSize()
    assert content["cases"][0]["values"] == {"bright ball": 1, "dark ball": 2}
    first = content["slices"][0]
    reviews = Reviews(Path(result.result["reviews"]))
    assert reviews.path == Path(trained.cases[0]["label"]).parent / REVIEW_FILE
    reviews = Reviews(tmp_path / "decisions.json")
    label = Path(next(case["label"] for case in trained.cases if case["id"] == first["case"]))
    reviews.decide(Decision(first["case"], "confirmed", first["axis"], first["slice"], label_key(label)))
    reviews.decide(Decision(content["cases"][-1]["case"], "quarantined"))
    again, _ = run(
        "suspects",
        run=str(trained.run),
        output=str(tmp_path / "again"),
        reviews=str(reviews.write()),
        budget=3,
        images=False,
    )
    left = json.loads(Path(again.result["suspects"]).read_text(encoding="utf-8"))
    assert len(left["slices"]) == 3
    places = {(row["case"], row["axis"], row["slice"]) for row in left["slices"] + left["regions"]}
    assert (first["case"], first["axis"], first["slice"]) not in places
    assert content["cases"][-1]["case"] not in {row["case"] for row in left["slices"] + left["cases"]}
    assert len(_table(tmp_path / "again" / "suspect_slices.csv")) == 3


class ByBrightness(torch.nn.Module):
    """Calls bright voxels the first class and dark ones the second, and is sure of it."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [B, 3, *S] of normalised images [B, 1, *S]."""
        return torch.cat([torch.zeros_like(image), 8 * (image - 1), 8 * (-image - 1)], dim=1)


def brightness_model(cases: list[dict[str, Any]]) -> SimpleNamespace:
    """What `judge_case` asks of a model."""
    listed = cases_from_dicts(cases)
    preprocessing = plan_preprocessing(list(listed), TASK, spatial_dims=2, slice_axis=0)
    values = {"task": TASK, "preprocessing": preprocessing, "patch_size": (24, 20), "device": torch.device("cpu")}
    return SimpleNamespace(network=ByBrightness(), **values)


def test_a_slice_with_exchanged_classes_comes_first_with_the_class_that_is_wanted(tmp_path: Path) -> None:
    cases = make_cases(tmp_path, 1)
    model = brightness_model(cases)
    (case,) = cases_from_dicts(cases)
    before = judge_case(model, case, watch=Watch())
    image = sitk.ReadImage(cases[0]["label"])
    labels = sitk.GetArrayFromImage(image)
    spoilt = int((labels == 1).sum((1, 2)).argmax())
    labels[spoilt] = np.array([0, 2, 1], labels.dtype)[labels[spoilt]]
    changed = sitk.GetImageFromArray(labels)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, cases[0]["label"])
    after = judge_case(model, case, watch=Watch())
    names = [each.name for each in TASK.classes]
    first = after.slices[0]
    assert (first["case"], first["axis"], first["slice"]) == (case.case_id, "k", spoilt)
    assert {first["class"], first["wanted"]} <= set(names)
    assert first["class"] != first["wanted"]
    assert first["score"] > 2 * max(row["score"] for row in before.slices)
    assert after.score > before.score
    region = after.regions[0]
    assert (region["slice"], region["voxels"] > 5) == (spoilt, True)
    index = image.TransformPhysicalPointToIndex(region["position_lps"])
    assert index[2] == spoilt
    assert names[int(labels[index[::-1]]) - 1] == region["class"]
    assert (first["axis"], first["slice"]) in after.pictures


def test_an_audit_lists_regions_by_the_sum_of_their_scores(trained: SimpleNamespace, tmp_path: Path) -> None:
    case = trained.cases[0]
    _, events = run("audit", model=str(trained.model), cases=[case], output=str(tmp_path))
    regions = json.loads(artifacts(events, case["id"])["review"].read_text(encoding="utf-8"))["regions"]
    assert regions
    sums = [row["voxels"] * row["score"] for row in regions]
    assert sums == sorted(sums, reverse=True)
    image = sitk.ReadImage(case["label"])
    values = {"background": 0, "bright ball": 1, "dark ball": 2}
    for row in regions:
        assert row["score"] == pytest.approx(sum(row[name] for name in ("T1", "T2", "T3", "T4")), abs=1e-3)
        assert row["class"] != row["wanted"]
        index = image.TransformPhysicalPointToIndex(row["position_lps"])
        assert image[index] == values[row["class"]]
        assert index[2] == row["slice"]


def test_rank_asks_for_each_case_once_a_model(trained: SimpleNamespace, tmp_path: Path) -> None:
    cases = [{"id": f"new{n}", "images": case["images"]} for n, case in enumerate(trained.cases)]
    memory = str(tmp_path / "asked.json")
    arguments = {"model": str(trained.model), "cases": cases, "budget": 4, "reviews": memory}
    first, events = run("rank", **arguments, output=str(tmp_path / "one"))
    assert first.exit_code == 0, events
    second, _ = run("rank", **arguments, output=str(tmp_path / "two"), images=False)
    asked = [*first.result["asked"], *second.result["asked"]]
    assert sorted(asked) == sorted(case["id"] for case in cases)
    third, events = run("rank", **arguments, output=str(tmp_path / "three"))
    assert third.exit_code == 2
    assert "asked for with this model already" in events[-1]["text"]
    again, _ = run("rank", **arguments, output=str(tmp_path / "again"), again=True)
    assert again.result["asked"] == first.result["asked"]
    content = json.loads(Path(first.result["ranking"]).read_text(encoding="utf-8"))
    assert content["schema"] == 1
    assert [row["case"] for row in content["cases"] if row["asked"]] == first.result["asked"]
    for row in content["slices"]:
        others = [each["slice"] for each in content["slices"] if each["case"] == row["case"] and each is not row]
        assert all(abs(row["slice"] - other) > 1 for other in others)
    assert "<img" in (tmp_path / "one" / "ranking.html").read_text(encoding="utf-8")
    assert "<img" not in (tmp_path / "two" / "ranking.html").read_text(encoding="utf-8")
    labelled, events = run("rank", **{**arguments, "cases": trained.cases}, output=str(tmp_path / "four"))
    assert labelled.exit_code == 2
    assert "nothing to rank" in events[-1]["text"]


def test_the_choice_is_hard_and_spread_out() -> None:
    features = np.array([[0.0], [0.1], [5.0], [9.0], [100.0]])
    difficulty = np.array([1.0, 0.99, 0.5, 0.6, 0.01])
    assert spread_out(features, difficulty, 3, pool=1) == [0, 3, 1]  # only the three hardest are looked at
    assert spread_out(features[:4], difficulty[:4], 3) == [0, 3, 2]  # not its neighbour, although it is harder
    assert spread_out(features, difficulty, 9) == [0, 4, 3, 2, 1]
    assert spread_out(features[:3], difficulty[:3], 3, gap=np.array([4, 5, 7])) == [0, 2]
    assert spread_out(features[:0], difficulty[:0], 3) == []


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
