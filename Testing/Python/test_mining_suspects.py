"""Suspicion of labels: closed forms, doubt that is no suspicion, and regions with the class that is wanted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ForgettableSegLib.mining.suspects import FLOOR, PRIOR_VOXELS, at_stake, surprise, suspect_regions, suspicion


def logits_of(probabilities: list[float], shape: tuple[int, ...] = (1, 1, 1)) -> torch.Tensor:
    """Logits [C, S, H, W] of the same probabilities everywhere."""
    return torch.tensor(probabilities).log()[:, None, None, None].expand(-1, *shape).clone()


def test_excess_is_surprise_less_entropy() -> None:
    p = [0.7, 0.2, 0.1]
    entropy = -sum(each * math.log(each) for each in p)
    for label in range(3):
        found = surprise(logits_of(p), torch.full((1, 1, 1), label, dtype=torch.uint8))
        assert float(found.excess) == pytest.approx(-math.log(p[label]) - entropy, abs=1e-5)
        assert int(found.predicted) == 0


def test_labels_drawn_from_the_networks_own_probabilities_are_not_suspicious() -> None:
    p = [0.6, 0.3, 0.1]
    labels = torch.multinomial(torch.tensor(p), 40_000, replacement=True, generator=torch.Generator().manual_seed(0))
    found = surprise(logits_of(p, (40, 100, 10)), labels.view(40, 100, 10).to(torch.uint8))
    scores = suspicion(found.excess.numpy().sum((1, 2)), np.full(40, 1000))
    assert abs(scores.mean()) < 0.3
    against = surprise(logits_of(p, (1, 100, 10)), torch.full((1, 100, 10), 2, dtype=torch.uint8))
    assert suspicion(float(against.excess.sum()), 1000) > 10 * scores.max()


def test_at_stake_is_what_either_calls_foreground_where_there_is_a_label() -> None:
    labels, predicted = np.array([0, 1, 0, 255, 255]), np.array([0, 0, 2, 1, 0])
    assert at_stake(labels, predicted, 3).tolist() == [False, True, True, False, False]


def test_a_sure_network_and_missing_labels_are_bounded() -> None:
    sure = torch.tensor([100.0, -100.0])[:, None, None, None]
    wrong = surprise(sure, torch.ones(1, 1, 1, dtype=torch.uint8))
    assert float(wrong.excess) == pytest.approx(-math.log(FLOOR), rel=1e-2)
    nothing = surprise(sure, torch.full((1, 1, 1), 255, dtype=torch.uint8))
    assert float(nothing.excess) == 0
    assert suspicion(0.0, 0) == 0


def test_regions_name_what_is_labelled_what_is_wanted_and_where() -> None:
    labels = np.zeros((3, 8, 8), np.uint8)
    labels[1, 1:4, 1:4] = 1
    predicted = np.zeros_like(labels)
    predicted[1, 1:4, 1:4] = 2  # labelled 1, wanted 2
    predicted[2, 6, 6] = 1  # labelled background, wanted 1
    predicted[0, 0, 7] = 1  # the network is not sure of this one
    logits = 12.0 * torch.nn.functional.one_hot(torch.from_numpy(predicted).long(), 3).movedim(-1, 0).float()
    logits[:, 0, 0, 7] = torch.tensor([-0.01, 0.0, -9.0])
    found = [each.numpy() for each in surprise(logits, torch.from_numpy(labels))]
    first, second = suspect_regions(*found, labels, num_classes=3)[:2]
    assert (first.label, first.wanted, first.voxels, first.centre) == (1, 2, 9, (1, 2, 2))
    assert first.box == ((1, 1), (1, 3), (1, 3))
    assert (second.label, second.wanted, second.voxels, second.centre) == (0, 1, 1, (2, 6, 6))
    assert first.score == pytest.approx(9 * -math.log(FLOOR) / math.sqrt(9 + PRIOR_VOXELS), rel=0.01)
    assert len(suspect_regions(*found, labels, num_classes=3, most=1)) == 1
