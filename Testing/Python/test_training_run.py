"""Runs from case list to model: they learn, resume bit for bit, and refuse what has changed."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from synthetic import make_arrays, write_cases
from training_cases import CPU, Listener, assert_same, resume, train, weights

from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.cases.split import split_cases
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.resources import resources_dir
from ForgettableSegLib.text.prompts import prompt_for
from ForgettableSegLib.training import gradients, trainer
from ForgettableSegLib.training.config import _embed
from ForgettableSegLib.training.export import model_package
from ForgettableSegLib.training.settings import TrainingSettings


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> CaseList:
    return write_cases(tmp_path_factory.mktemp("cases"), 6)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_run_learns_and_leaves_its_files(cases: CaseList, tmp_path: Path, dims: int) -> None:
    listener = Listener()
    settings = {"iterations": 80, "spatial_dims": dims, "validate_every": 40, "learning_rate": 0.02}
    if dims == 3:
        settings |= {"batch_size": 2, "iterations": 60, "patch_size": [8, 16, 16], "rho": 0.5}
    outcome = train(cases, tmp_path / "run", listener, settings=settings)
    assert outcome.validation_dice > 0.7
    names = {name for name, _, _ in listener.metrics}
    assert names == {"loss", "scores", "bank", "validation"}
    run = tmp_path / "run"
    rows = list(csv.DictReader((run / "history.csv").open()))
    assert [int(row["iteration"]) for row in rows] == list(range(outcome.iterations))
    assert sum(float(row["main_loss"]) for row in rows[:5]) > sum(float(row["main_loss"]) for row in rows[-5:])
    assert int(rows[-1]["replays"]) > 0
    split = json.loads((run / "split.json").read_text())
    assert sorted(case for part in split.values() for case in part) == [case.case_id for case in cases]
    samples = list(csv.DictReader((run / "samples.csv").open()))
    assert {row["case"] for row in samples} == set(split["train"])
    assert sum(int(row["presentations"]) for row in samples) == outcome.iterations * outcome.config.settings.batch_size
    assert sum(int(row["replays"]) for row in samples) == int(rows[-1]["replays"])
    for entry in json.loads((run / "bank.json").read_text()):
        assert len(entry["position_lps"]) == 3
        assert entry["class"] in ("background", "bright ball", "dark ball")
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert any(event.get("name") == "validation" for event in events)


@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_cancelled_and_resumed_is_the_same_bit_for_bit(cases: CaseList, tmp_path: Path, preset: str) -> None:
    settings = {"preset": preset, "replay_every": 2}
    whole = train(cases, tmp_path / "whole", settings=settings)
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "cut", Listener(stop_at=7), settings=settings)
    with pytest.raises(Cancelled):
        resume(tmp_path / "cut", Listener(stop_at=17))
    resumed = resume(tmp_path / "cut")
    assert_same(whole, resumed)
    for name in ("history.csv", "samples.csv", "bank.json"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "cut" / name).read_text(), name


def test_resuming_from_the_last_checkpoint_repeats_what_was_lost(cases: CaseList, tmp_path: Path) -> None:
    whole = train(cases, tmp_path / "whole")
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "cut", Listener(stop_at=16))
    # As if the process had been killed at iteration 16 and its last checkpoint been of iteration 12.
    next((tmp_path / "cut" / "checkpoint").glob("000000016-*.pt")).unlink()
    resumed = resume(tmp_path / "cut")
    assert_same(whole, resumed)
    assert (tmp_path / "whole" / "history.csv").read_text() == (tmp_path / "cut" / "history.csv").read_text()


def test_the_same_seed_gives_the_same_package(cases: CaseList, tmp_path: Path) -> None:
    packages = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        outcome = train(cases, tmp_path / name, settings={"seed": seed, "iterations": 8})
        package = model_package(outcome, device=CPU, calibration={}).write(tmp_path / f"{name}.zip")
        packages.append(package.read_bytes())
    assert packages[0] == packages[1]
    assert packages[0] != packages[2]


def test_a_package_tells_nothing_of_the_cases(cases: CaseList, tmp_path: Path) -> None:
    outcome = train(cases, tmp_path / "run", settings={"iterations": 8, "store": "patch"})
    path = model_package(outcome, device=CPU, calibration={}).write(tmp_path / "model")
    content = b"".join(file.read_bytes() for file in path.iterdir())
    for case in cases:
        assert case.case_id.encode() not in content
    assert str(tmp_path).encode() not in content
    assert b"bank" not in content.replace(b"bank_batches", b"")


def test_changed_data_is_refused_by_name(cases: CaseList, tmp_path: Path) -> None:
    own = write_cases(tmp_path / "own", 6)
    with pytest.raises(Cancelled):
        train(own, tmp_path / "run", Listener(stop_at=8))
    changed = json.loads((tmp_path / "run" / "split.json").read_text())["train"][0]
    write_cases(tmp_path / "other", 1, first_seed=77)
    case = next(case for case in own if case.case_id == changed)
    (tmp_path / "other" / "ball00.nii.gz").replace(case.images[0])
    with pytest.raises(ForgettableSegError, match=changed) as caught:
        resume(tmp_path / "run")
    assert caught.value.code == ErrorCode.RUN_MISMATCH


def test_changed_settings_are_refused_by_name(cases: CaseList, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "run", Listener(stop_at=8))
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"rho": 0.25', '"rho": 0.5'))
    with pytest.raises(ForgettableSegError, match=r"'rho' was 0\.25 and is 0\.5") as caught:
        resume(tmp_path / "run")
    assert caught.value.code == ErrorCode.RUN_MISMATCH


def test_a_used_folder_is_refused(cases: CaseList, tmp_path: Path) -> None:
    train(cases, tmp_path / "run", settings={"iterations": 1})
    with pytest.raises(ForgettableSegError, match="already") as caught:
        train(cases, tmp_path / "run", settings={"iterations": 1})
    assert caught.value.code == ErrorCode.RUN_MISMATCH
    with pytest.raises(ForgettableSegError) as caught:
        resume(tmp_path / "nothing")
    assert caught.value.code == ErrorCode.RUN_MISMATCH


def test_fine_tuning_keeps_classes_or_says_what_is_new(cases: CaseList, tmp_path: Path) -> None:
    first = train(cases, tmp_path / "first", settings={"iterations": 40, "learning_rate": 0.02})
    package = model_package(first, device=CPU, calibration={})
    same = train(cases, tmp_path / "same", settings={"iterations": 1, "learning_rate": 1e-8}, start=package)
    assert same.validation_dice == pytest.approx(first.validation_dice, abs=0.02)
    one_class = Task(name="one", modality="MR", channels=("T1",), classes=(SegmentClass(name="dark ball", value=2),))
    other_cases = write_cases(tmp_path / "one", 6)
    for case in other_cases:
        _keep_only(case.label, 2)
    listener = Listener()
    other = train(other_cases, tmp_path / "other", listener, task=one_class, settings={"iterations": 2}, start=package)
    assert any("fusion.text_projection" in text and "output" in text for text in listener.texts)
    assert other.network.output.out_channels == 2
    assert other.config.preprocessing == package.preprocessing


def test_a_model_that_was_trained_with_another_article_keeps_its_text() -> None:
    shipped = ModelPackage.read(resources_dir() / "Models" / "hippocampus")
    prompts = [prompt_for(each, "MR") for each in shipped.task.classes]
    assert prompts[0] == "A magnetic resonance imaging of an anterior hippocampus"
    before = [prompt.replace(" an ", " a ") for prompt in prompts]  # as the words were put together once
    start = dataclasses.replace(shipped, card={**shipped.card, "text": {**shipped.card["text"], "prompts": before}})
    assert prompts != start.card["text"]["prompts"]
    assert torch.equal(_embed(prompts, TrainingSettings(), start).vectors, start.text)


def _keep_only(path: Path, value: int) -> None:
    import SimpleITK as sitk

    label = sitk.ReadImage(str(path))
    sitk.WriteImage((label == value) * value, str(path))


def test_running_out_of_memory_changes_the_parts_not_the_result(
    cases: CaseList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"loss": "ce", "iterations": 6, "validate_every": 6}
    whole = train(cases, tmp_path / "whole", settings=settings)
    forward = gradients.SupervisedOutputs.forward

    def small_device(self: torch.nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(images) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    monkeypatch.setattr(gradients.SupervisedOutputs, "forward", small_device)
    listener = Listener()
    parts = train(cases, tmp_path / "parts", listener, settings=settings)
    assert any("4 parts" in text for text in listener.texts)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(tensor, weights(parts)[name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_device_too_small_for_one_patch_says_so(
    cases: CaseList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(self: torch.nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gradients.SupervisedOutputs, "forward", no_memory)
    with pytest.raises(ForgettableSegError, match="smaller patch") as caught:
        train(cases, tmp_path / "run")
    assert caught.value.code == ErrorCode.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "modules",
    [
        {"tgf": False, "pbs": False, "fsb": False},
        {"tgf": True, "pbs": False, "fsb": False},
        {"tgf": False},
        {"pbs": False, "selection": "foreground"},
        {"pbs": False, "selection": "loss", "store": "patch"},
        {"score_mode": "zscore", "selection": "T3", "replacement": "score"},
        {"score_features": "penultimate", "admission": "topk", "replacement": "fifo"},
        {"admission": "forgetting", "fusion": "visual_query"},
        {"fusion": "literal", "text": "learned", "loss": "ce"},
        {"context_slices": 1, "store": "patch"},
    ],
)
def test_every_switch_trains(cases: CaseList, tmp_path: Path, modules: dict) -> None:
    outcome = train(cases, tmp_path / "run", settings={**modules, "iterations": 10})
    assert outcome.iterations == 10
    assert all(torch.isfinite(value).all() for value in outcome.network.state_dict().values())


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that shows 0.05 s more at each look: a machine on which every iteration takes the same time."""
    looks = itertools.count()
    monkeypatch.setattr(trainer.time, "monotonic", lambda: 0.05 * next(looks))


@pytest.mark.usefixtures("steady_clock")
def test_minutes_set_the_length(cases: CaseList, tmp_path: Path) -> None:
    outcome = train(cases, tmp_path / "run", settings={"minutes": 0.1})
    assert 3 < outcome.seconds <= 6
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").open()))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * rates[0], "the rate falls to its end, whatever the speed"


@pytest.mark.usefixtures("steady_clock")
def test_a_fine_tuning_by_time_validates_its_start_beside_the_others_and_guesses_no_length(
    cases: CaseList, tmp_path: Path
) -> None:
    class Steps(Listener):
        told: ClassVar[list[tuple[float, float]]] = []

        def progress(self, phase: str, step: float, of: float, *, case: str | None = None) -> None:
            if phase == "train":
                self.told.append((step, of))

    package = model_package(train(cases, tmp_path / "first", settings={"iterations": 1}), device=CPU, calibration={})
    listener = Steps()
    settings = {"minutes": 0.3, "validate_every": None, "dynamics": False}
    last = train(cases, tmp_path / "run", listener, settings=settings, start=package).iterations
    validated = [iteration for name, iteration, _ in listener.metrics if name == "validation"]
    assert validated[0] == 0
    assert len(validated) >= 4
    assert validated[1] / last < 1.5 / (len(validated) - 1), "they are spread evenly, the first as the others"
    step, of = listener.told[0]
    assert of > step + 1


@pytest.mark.usefixtures("steady_clock")
def test_a_run_by_time_can_be_resumed(cases: CaseList, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "run", Listener(stop_at=7), settings={"minutes": 0.1})
    assert 3 < resume(tmp_path / "run").seconds <= 6


def test_what_is_planned_is_kept_and_said(cases: CaseList, tmp_path: Path) -> None:
    listener = Listener()
    outcome = train(cases, tmp_path / "run", listener, settings={"batch_size": None, "iterations": 3})
    assert any(text.startswith(f"Planned {outcome.config.settings.batch_size} patches") for text in listener.texts)
    assert tuple(outcome.config.settings.patch_size) == tuple(outcome.config.patch_size)


def test_a_start_that_is_better_stays(cases: CaseList, tmp_path: Path) -> None:
    first = train(cases, tmp_path / "first", settings={"iterations": 80, "learning_rate": 0.02})
    package = model_package(first, device=CPU, calibration={})
    spoiled = train(cases, tmp_path / "spoiled", settings={"iterations": 8, "learning_rate": 1.0}, start=package)
    assert spoiled.kept_start
    assert spoiled.best_iteration == 0
    assert spoiled.validation_dice == pytest.approx(first.validation_dice, abs=5e-3)
    for name, tensor in package.network().state_dict().items():
        assert torch.equal(tensor, spoiled.network.state_dict()[name]), name
    assert not first.kept_start


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_bad_case_is_told_of_and_left_out(tmp_path: Path, part: str) -> None:
    own = write_cases(tmp_path / "own", 6)
    split = split_cases(own.cases, ratios=(4, 1, 1), seed=0)
    broken = next(case for case in own if case.case_id == getattr(split, part)[0])
    broken.images[0].write_bytes(b"not an image")
    listener = Listener()
    outcome = train(own, tmp_path / "run", listener, settings={"iterations": 1})
    assert broken.case_id in getattr(outcome.config.split, part)
    assert listener.failed == [broken.case_id]


def test_made_up_cases_are_what_they_claim() -> None:
    image, label = make_arrays(0)
    assert image[label == 1].mean() > image[label == 0].mean() > image[label == 2].mean()
