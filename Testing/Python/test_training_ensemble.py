"""Averaging runs: the mean of their networks, kept by a package, judged as a model, and trained on together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic import TASK, write_cases
from training_cases import CPU, Listener, train

from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.errors import ForgettableSegError
from ForgettableSegLib.inference.predictor import Predictor
from ForgettableSegLib.jobs.job import JobContext
from ForgettableSegLib.jobs.training import finish
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.build import NetworkArguments, build_network
from ForgettableSegLib.network.mirror import mirrored_mean
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.ensemble import combine_runs

ARGUMENTS = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 3,
    "features": [4, 8],
    "fusion": "residual",
    "text_shape": [2, 5],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[CaseList, list[Path]]:
    """Two finished runs of the same cases, with other seeds and mirror axes."""
    root = tmp_path_factory.mktemp("ensemble")
    cases = write_cases(root / "cases", 6, shape=(6, 20, 18))
    folders = [root / "first", root / "second"]
    split = None
    for seed, folder in enumerate(folders):
        settings = {"iterations": 4, "mirror_axes": [2] if seed else [], "seed": seed}
        outcome = train(cases, folder, settings=settings, split=split)
        split = outcome.config.split
        finish(outcome, CPU, ProcessGroup(), JobContext())
    return cases, folders


def _image() -> torch.Tensor:
    return torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_combined_model_is_the_mean_of_its_members(runs: tuple[CaseList, list[Path]], tmp_path: Path) -> None:
    _, folders = runs
    outcome = combine_runs(folders, tmp_path / "out", cache=tmp_path / "cache")
    finish(outcome, CPU, ProcessGroup(), JobContext())
    package = ModelPackage.read(tmp_path / "out" / "model")
    members = [ModelPackage.read(folder / "model") for folder in folders]
    with torch.no_grad():
        expected = sum(mirrored_mean(each.network())(_image()) for each in members) / 2
        torch.testing.assert_close(mirrored_mean(package.network())(_image()), expected)
    assert package.card["network"]["members"] == [[], [2]]
    assert torch.equal(package.text, members[0].text)
    means = [each.prototypes["mean"] for each in members]
    torch.testing.assert_close(package.prototypes["mean"], (means[0] + means[1]) / 2)
    assert {"confidence_voxel", "prototype_ratio_voxel"} <= set(package.calibration)
    assert package.card["metrics"]["held_out"]["count"] == len(outcome.config.split.test)
    case = outcome.config.select(outcome.config.split.test)[0]
    assert Predictor(package).segment_case(case).difficulty["prototype_ratio"].max() <= 100


def test_a_combined_model_is_fine_tuned_as_a_whole(runs: tuple[CaseList, list[Path]], tmp_path: Path) -> None:
    cases, folders = runs
    outcome = combine_runs(folders, tmp_path / "out", cache=tmp_path / "cache")
    finish(outcome, CPU, ProcessGroup(), JobContext())
    start = ModelPackage.read(tmp_path / "out" / "model")
    tuned = train(cases, tmp_path / "tuned", settings={"iterations": 2}, start=start)
    assert tuned.config.network["members"] == [[], [2]]
    before, after = start.network().state_dict(), tuned.network.state_dict()
    changed = {name.split(".")[1] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"0", "1"}


def test_other_classes_start_from_the_first_member(runs: tuple[CaseList, list[Path]], tmp_path: Path) -> None:
    cases, folders = runs
    outcome = combine_runs(folders, tmp_path / "out", cache=tmp_path / "cache")
    finish(outcome, CPU, ProcessGroup(), JobContext())
    start = ModelPackage.read(tmp_path / "out" / "model")
    classes = tuple(replace(each, name=f"other {each.name}") for each in TASK.classes)
    listener = Listener()
    settings = {"iterations": 1, "learning_rate": 1e-8}
    tuned = train(
        cases, tmp_path / "tuned", listener, settings=settings, start=start, task=replace(TASK, classes=classes)
    )
    assert tuned.config.network["members"] == []
    first = start.network().members[0].state_dict()
    after = tuned.network.state_dict()
    torch.testing.assert_close(after["stem.conv_0.conv.weight"], first["stem.conv_0.conv.weight"], atol=1e-5, rtol=0)
    assert not torch.allclose(after["output.weight"], first["output.weight"], atol=1e-3)
    assert any("new weights for: " in text and "output" in text for text in listener.texts)


def test_runs_that_do_not_go_together_are_refused(runs: tuple[CaseList, list[Path]], tmp_path: Path) -> None:
    cases, folders = runs
    with pytest.raises(ForgettableSegError, match="two runs"):
        combine_runs(folders[:1], tmp_path / "out", cache=tmp_path / "cache")
    other = tmp_path / "other"
    outcome = train(cases, other, settings={"iterations": 2, "features": [4, 8, 16], "seed": 5})
    finish(outcome, CPU, ProcessGroup(), JobContext())
    with pytest.raises(ForgettableSegError, match=r"other cannot be averaged .* network"):
        combine_runs([folders[0], other], tmp_path / "out", cache=tmp_path / "cache")


@pytest.mark.parametrize("members", [[[0]], [[0], [3]], [[], [1, 1]], 2, [[]] * 9])
def test_other_members_are_refused(members: object) -> None:
    with pytest.raises(ForgettableSegError, match="members"):
        build_network({**ARGUMENTS, "members": members})


def test_arguments_go_through_json() -> None:
    arguments = NetworkArguments.from_dict({**ARGUMENTS, "members": [[], [0]]})
    again = NetworkArguments.from_dict(json.loads(json.dumps(arguments.to_dict())))
    assert again == arguments
