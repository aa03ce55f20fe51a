"""Figures of a run: errors by colour, activation where the class is, and the history of the bank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from job_inputs import artifacts, run, training_arguments
from training_cases import Listener

from ForgettableSegLib.evaluation.figures import class_activation, error_map, evenly
from ForgettableSegLib.jobs.figures import BANK_FILE, CASES_FILE, CURVES_FILE, HISTORY_FILE
from ForgettableSegLib.network.build import build_network
from ForgettableSegLib.training.recorder import BANK_HISTORY, Recorder, read_bank_history


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a bank."""
    folder = tmp_path_factory.mktemp("figures")
    settings = {"prototype_min_count": 0, "rho": 0.5, "admission": "topk", "context_slices": 1}
    arguments = training_arguments(folder / "cases", folder / "run", **settings)
    result, events = run("train", **arguments)
    assert result.exit_code == 0, events[-1]
    return folder / "run"


def test_errors_are_missed_invented_or_both() -> None:
    reference, prediction = np.array([0, 1, 1, 0, 1, 2]), np.array([0, 1, 0, 1, 2, 2])
    assert error_map(reference, prediction).tolist() == [0, 0, 1, 2, 3, 0]


def test_activation_is_where_a_class_is_made() -> None:
    """A network whose last map is the image itself: its activation for the class that weighs it is the image."""
    torch.manual_seed(0)
    network = build_network({"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "features": [4, 8]})
    seen: list[torch.Tensor] = []
    network.up[-1].register_forward_hook(lambda module, given, made: seen.append(made))
    image = torch.rand(1, 1, 16, 12)
    found = class_activation(network, "unet", image, 1)
    # The gradient of the summed logit is the weight of each feature: Grad-CAM is the logit without its bias.
    expected = torch.relu((seen[0] * network.output.weight[1].view(1, -1, 1, 1)).sum(1))[0]
    np.testing.assert_allclose(found, (expected / expected.max()).detach().numpy(), atol=1e-5)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("architecture", ["attention_unet", "unetr", "nnunet"])
def test_every_architecture_has_an_activation(architecture: str) -> None:
    network = build_network(
        {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "features": [4, 8, 8], "num_heads": 2,
         "architecture": architecture, "window": [16, 16] if architecture == "unetr" else None}
    )  # fmt: skip
    found = class_activation(network, architecture, torch.rand(1, 1, 16, 16), 2)
    assert found.shape == (16, 16)
    assert 0 <= found.min() <= found.max() <= 1


def test_the_bank_is_remembered_at_every_validation(trained: Path) -> None:
    history = read_bank_history(trained / BANK_HISTORY)
    assert [entry["iteration"] for entry in history] == [4, 8]
    split = json.loads((trained / "split.json").read_text())
    places = [place for entry in history for place in entry["samples"]]
    assert places
    assert {case for case, _, _ in places} <= set(split["train"])
    assert {name for _, _, name in places} <= {"background", "bright ball", "dark ball"}
    bank = json.loads((trained / "bank.json").read_text())
    assert [[entry["case"], entry["slice"], entry["class"]] for entry in bank] == history[-1]["samples"]


def test_a_resumed_run_tells_the_banks_history_once(tmp_path: Path) -> None:
    recorder = Recorder(Listener(), tmp_path)
    for iteration in (4, 8, 8, 12):
        recorder.bank(iteration, [{"case": "a", "slice": iteration, "class": "x"}])
    with (tmp_path / BANK_HISTORY).open("a") as stream:
        stream.write('{"iteration": 16, "sam')
    recorder.rewind(8)
    assert [entry["iteration"] for entry in read_bank_history(tmp_path / BANK_HISTORY)] == [4, 8]
    assert read_bank_history(tmp_path / "none.jsonl") == []


def test_the_figures_of_a_run_are_drawn(trained: Path, tmp_path: Path) -> None:
    result, events = run("figures", run=str(trained), output=str(tmp_path), cases=1, device="cpu")
    assert result.exit_code == 0, events[-1]
    assert {path.name for path in tmp_path.glob("*.png")} == {CURVES_FILE, CASES_FILE, BANK_FILE, HISTORY_FILE}
    assert artifacts(events)["report"].is_file()
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))


@pytest.mark.parametrize(("take_away", "named"), [("model", "no model yet"), ("config.json", "no training run")])
def test_without_a_finished_run_there_is_nothing_to_draw(
    trained: Path, tmp_path: Path, take_away: str, named: str
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "split.json"):
        if name != take_away:
            (folder / name).write_bytes((trained / name).read_bytes())
    result, events = run("figures", run=str(folder), output=str(tmp_path / "out"))
    assert result.exit_code == 2
    assert named in events[-1]["text"]


def test_values_are_taken_evenly() -> None:
    values: list[Any] = list(range(10))
    assert evenly(values, 4) == [0, 3, 6, 9]
    assert evenly(values[:2], 4) == [0, 1]
    assert evenly([7], 3) == [7]
