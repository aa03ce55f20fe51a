"""What makes the updates: optimiser, schedule, average of the weights, losses at every level of the decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from synthetic import write_cases
from torch import nn
from training_cases import Listener, assert_same, resume, train

from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.errors import Cancelled
from ForgettableSegLib.network.build import build_network
from ForgettableSegLib.training.gradients import scheduled_rate
from ForgettableSegLib.training.losses import segmentation_loss, supervised_loss
from ForgettableSegLib.training.settings import TrainingSettings
from ForgettableSegLib.training.weight_average import WeightAverage

ALL = {
    "optimizer": "adamw",
    "learning_rate": 0.002,
    "momentum": 0.9,
    "schedule": "cosine",
    "warm_up": 0.1,
    "weight_average": 0.9,
    "deep_supervision": True,
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> CaseList:
    return write_cases(tmp_path_factory.mktemp("cases"), 6)


def test_the_average_of_constant_weights_is_those_weights() -> None:
    layer = nn.Linear(2, 1)
    average = WeightAverage(layer, 0.99)
    for _ in range(5):
        average.update(layer)
    torch.testing.assert_close(average.network.weight, layer.weight)


def test_the_average_follows_its_closed_form() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average, expected = WeightAverage(layer, 0.5), 0.0
    for step, value in enumerate([1.0, 3.0, -2.0, 5.0, 8.0]):
        nn.init.constant_(layer.weight, value)
        average.update(layer)
        beta = min(0.5, (1 + step) / (10 + step))
        expected = beta * expected + (1 - beta) * value
    assert float(average.network.weight) == pytest.approx(expected)


def test_the_average_copies_what_is_no_weight() -> None:
    norm = nn.BatchNorm1d(3)
    average = WeightAverage(norm, 0.9)
    norm(torch.randn(8, 3) + 4)
    average.update(norm)
    torch.testing.assert_close(average.network.running_mean, norm.running_mean)


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_the_rate_rises_to_its_highest_and_falls_to_nothing(schedule: str) -> None:
    settings = TrainingSettings(schedule=schedule, warm_up=0.2, learning_rate=0.5)
    rates = [scheduled_rate(settings, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[20] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_without_lower_levels_the_loss_is_the_plain_one() -> None:
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    plain, per_sample = segmentation_loss(logits, labels, kind="dice_ce")
    loss, losses = supervised_loss(logits, [], labels, kind="dice_ce")
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(losses, per_sample)


def test_the_levels_weigh_half_of_the_one_above() -> None:
    logits, labels = torch.randn(2, 3, 9, 8), torch.randint(0, 3, (2, 9, 8))
    lower = [torch.randn(2, 3, 5, 4), torch.randn(2, 3, 3, 2)]
    parts = [segmentation_loss(logits, labels, kind="ce")[0]]
    parts.append(segmentation_loss(lower[0], labels[:, ::2, ::2], kind="ce")[0])
    parts.append(segmentation_loss(lower[1], labels[:, ::4, ::4], kind="ce")[0])
    expected = (parts[0] + parts[1] / 2 + parts[2] / 4) / 1.75
    torch.testing.assert_close(supervised_loss(logits, lower, labels, kind="ce")[0], expected)


@pytest.mark.parametrize(("dims", "size"), [(2, (20, 13)), (3, (9, 16, 10))])
def test_lower_logits_lie_on_every_second_voxel_of_the_level_above(dims: int, size: tuple[int, ...]) -> None:
    arguments = {"spatial_dims": dims, "in_channels": 1, "out_channels": 3, "features": (4, 4, 8, 8)}
    network = build_network({**arguments, "deep_supervision": True})
    image = torch.randn(2, 1, *size)
    logits, features, lower, _ = network.forward_supervised(image)
    assert [tuple(each.shape[2:]) for each in (logits, *lower)] == [
        tuple(-(-n // 2**level) for n in size) for level in range(2)
    ]
    torch.testing.assert_close(network(image), logits)
    assert network.forward_with_features(image)[1].shape == features.shape


def test_two_levels_have_nothing_to_supervise_below() -> None:
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": (4, 8)}
    assert build_network({**arguments, "deep_supervision": True}).forward_supervised(torch.randn(1, 1, 8, 8))[2] == []


def test_what_is_exported_is_the_average(cases: CaseList, tmp_path: Path) -> None:
    outcome = train(cases, tmp_path / "average", settings={**ALL, "iterations": 60, "weight_average": 0.95})
    assert outcome.validation_dice > 0.6
    plain = train(cases, tmp_path / "plain", settings={**ALL, "iterations": 60, "weight_average": 0.0})
    assert not torch.equal(outcome.network.output.weight, plain.network.output.weight)


def test_cancelled_and_resumed_is_the_same_bit_for_bit(cases: CaseList, tmp_path: Path) -> None:
    whole = train(cases, tmp_path / "whole", settings=ALL)
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "parts", Listener(stop_at=13), settings=ALL)
    assert_same(whole, resume(tmp_path / "parts"))
