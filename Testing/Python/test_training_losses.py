"""Losses against closed forms, and the sums over parts and ranks that they promise."""

from __future__ import annotations

import math

import pytest
import torch

from ForgettableSegLib.training.losses import IGNORE_LABEL, cross_entropy, segmentation_loss, soft_dice_loss


def test_cross_entropy_of_a_uniform_network_is_log_c() -> None:
    labels = torch.randint(0, 4, (3, 5, 6))
    torch.testing.assert_close(cross_entropy(torch.zeros(3, 4, 5, 6), labels), torch.full((3,), math.log(4)))


def test_voxels_without_label_change_neither_loss_nor_gradient() -> None:
    logits = torch.randn(2, 3, 6, 6, requires_grad=True)
    labels = torch.randint(0, 3, (2, 6, 6))
    labels[:, :2] = IGNORE_LABEL
    loss, _ = segmentation_loss(logits, labels, kind="dice_ce")
    loss.backward()
    assert logits.grad[:, :, :2].abs().max() == 0
    with torch.no_grad():
        inner, _ = segmentation_loss(logits[:, :, 2:], labels[:, 2:], kind="dice_ce")
    torch.testing.assert_close(loss.detach(), inner)


def test_a_sample_without_any_label_costs_nothing() -> None:
    labels = torch.full((2, 4, 4), IGNORE_LABEL)
    loss, per_sample = segmentation_loss(torch.randn(2, 3, 4, 4), labels, kind="ce")
    assert loss == 0
    assert per_sample.tolist() == [0, 0]


def test_dice_of_a_perfect_and_of_a_wrong_answer() -> None:
    labels = torch.randint(0, 3, (2, 8, 8))
    perfect = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1) * 100.0
    assert soft_dice_loss(perfect, labels) == pytest.approx(0, abs=1e-5)
    wrong = torch.nn.functional.one_hot((labels + 1) % 3, 3).movedim(-1, 1) * 100.0
    assert soft_dice_loss(wrong, labels) == pytest.approx(1, abs=1e-3)


def test_dice_by_hand() -> None:
    # Two voxels of class 1 among four, predicted with probability 1/2 everywhere: 2 * 1 / (2 + 2) = 1/2.
    labels = torch.tensor([[[0, 0], [1, 1]]])
    assert soft_dice_loss(torch.zeros(1, 2, 2, 2), labels) == pytest.approx(0.5, abs=1e-4)


def test_cross_entropy_of_a_batch_is_the_mean_over_its_parts() -> None:
    logits, labels = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))
    labels[0, :4] = IGNORE_LABEL
    whole, _ = segmentation_loss(logits, labels, kind="ce")
    parts = [segmentation_loss(logits[i : i + 2], labels[i : i + 2], kind="ce")[0] for i in (0, 2)]
    torch.testing.assert_close(whole, sum(parts) / 2)


def test_dice_over_ranks_is_the_dice_of_the_whole_batch() -> None:
    logits, labels = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))
    counts: list[torch.Tensor] = []

    def remember(values: torch.Tensor) -> torch.Tensor:
        counts.append(values)
        return values

    for first in (0, 2):
        soft_dice_loss(logits[first : first + 2], labels[first : first + 2], remember)
    whole = soft_dice_loss(logits[:2], labels[:2], lambda own: counts[0] + counts[1])
    torch.testing.assert_close(whole, soft_dice_loss(logits, labels))
