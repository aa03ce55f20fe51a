"""Learning dynamics of a case: samples, what the network has right of them, groups, and counters of voxels."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from ForgettableSegLib.mining.dynamics import CaseDynamics, Outcomes, group_of, samples_of, slice_outcomes
from ForgettableSegLib.mining.prototypes import IGNORE_LABEL


def labels_of_two_slices() -> torch.Tensor:
    """4 x 4 voxels: class 1 on the left half of slice 0 with an unlabelled corner, nothing in slice 1."""
    labels = torch.zeros(2, 4, 4, dtype=torch.uint8)
    labels[0, :, :2] = 1
    labels[0, 0, 3] = IGNORE_LABEL
    return labels


def sure(classes: torch.Tensor, num_classes: int = 3) -> torch.Tensor:
    """Logits [C, S, H, W] of a network that is sure of these classes."""
    return 30.0 * one_hot(classes.long(), num_classes).movedim(-1, 0).float()


def test_every_slice_has_its_classes_and_one_sample_for_all_that_is_absent() -> None:
    assert samples_of(labels_of_two_slices().numpy()).tolist() == [[0, 0], [0, 1], [1, 0]]
    assert samples_of(np.zeros((0, 4, 4), np.uint8)).shape == (0, 2)


def test_a_network_that_agrees_has_everything_right() -> None:
    labels = labels_of_two_slices()
    found = slice_outcomes(sure(labels.masked_fill(labels == IGNORE_LABEL, 2)), labels, samples_of(labels.numpy()))
    assert found.correct.all()
    assert found.dice.tolist() == pytest.approx([1, 1, 1])
    assert found.confidence.tolist() == pytest.approx([1, 1, 1])
    assert found.share.tolist() == [0, 0, 0]


def test_outcomes_are_those_counted_by_hand() -> None:
    labels = labels_of_two_slices()
    predicted = torch.zeros(2, 4, 4, dtype=torch.int64)
    predicted[0, :, 0] = 1  # half of class 1 ...
    predicted[0, :3, 1] = 2  # ... most of the rest is called class 2, which the labels do not have here
    predicted[1, 0, 0] = 2
    found = slice_outcomes(sure(predicted), labels, samples_of(labels.numpy()))
    assert found.dice.tolist() == pytest.approx([1 - 3 / 15, 2 * 4 / (8 + 4), 1 - 1 / 16])
    assert found.confidence.tolist() == pytest.approx([0, 0.5, 0], abs=1e-6)
    assert found.correct.tolist() == [False, False, False]
    assert found.wanted.tolist() == [2, 2, 2]
    assert found.share.tolist() == pytest.approx([3 / 15, 3 / 8, 1 / 16])


def outcome(correct: bool) -> Outcomes:
    """One look at one sample."""
    value = torch.tensor([float(correct)])
    return Outcomes(value, value, torch.tensor([correct]), torch.tensor([1]), value)


def test_events_of_voxels_are_counted_up_to_the_limit_and_survive_a_file() -> None:
    dynamics = CaseDynamics(torch.tensor([[0, 1]]), shape=(1, 1, 2))
    for turn in range(300):
        dynamics.update(outcome(turn % 2 == 0), torch.tensor([[[turn % 2 == 0, turn < 10]]]))
        if turn == 20:
            assert dynamics.forgotten.flatten().tolist() == [10, 1]
    assert dynamics.forgotten.flatten().tolist() == [127, 1]
    assert int(dynamics.history.events[0]) == 150
    file = io.BytesIO()
    torch.save(dynamics.state_dict(), file)
    file.seek(0)
    again = CaseDynamics.from_state(torch.load(file, weights_only=True))
    for each in (dynamics, again):
        each.update(outcome(True), torch.tensor([[[True, True]]]))
    assert torch.equal(dynamics.voxels, again.voxels)
    assert torch.equal(dynamics.history.confidence, again.history.confidence)


@pytest.mark.parametrize(
    ("presentations", "learnt", "events", "group"),
    [
        (2, 0, 0, "unknown"),
        (3, 0, 0, "never learnt"),
        (8, 1, 0, "unforgettable"),
        (8, 1, 1, "moderately forgettable"),
        (8, 2, 2, "highly forgettable"),
        (3, 1, 1, "highly forgettable"),
    ],
)
def test_groups_by_how_often_a_sample_could_have_been_forgotten(
    presentations: int, learnt: int, events: int, group: str
) -> None:
    assert group_of(presentations, learnt, events) == group
