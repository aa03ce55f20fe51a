"""Forgetting statistics against a plain count per sample, and the suspects they find."""

from __future__ import annotations

import io
import statistics as plain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ForgettableSegLib.mining.forgetting import ForgettingStatistics, is_correct, true_class_confidence
from ForgettableSegLib.mining.prototypes import IGNORE_LABEL

PRESENTATION = st.tuples(st.integers(0, 5), st.booleans(), st.floats(0, 1, width=32))


@settings(max_examples=100, deadline=None)
@given(batches=st.lists(st.lists(PRESENTATION, max_size=12), max_size=8))
def test_the_statistics_are_those_of_counting_one_by_one(batches: list[list[tuple[int, bool, float]]]) -> None:
    table = ForgettingStatistics(6)
    history: dict[int, list[tuple[bool, float]]] = {i: [] for i in range(6)}
    for batch in batches:
        ids, correct, confidence = ([row[k] for row in batch] for k in range(3))
        table.update(
            torch.tensor(ids, dtype=torch.int64), torch.tensor(correct, dtype=torch.bool), torch.tensor(confidence)
        )
        for i, right, p in batch:
            history[i].append((right, p))
    for i, rows in history.items():
        right = [row[0] for row in rows]
        p = [row[1] for row in rows]
        pairs = list(zip([False, *right], right, strict=False))
        assert int(table.presentations[i]) == len(rows)
        assert int(table.events[i]) == sum(before and not now for before, now in pairs)
        assert int(table.learnt[i]) == sum(now and not before for before, now in pairs)
        assert int(table.correct[i]) == sum(right)
        assert int(table.first_learnt[i]) == (right.index(True) if True in right else -1)
        assert int(table.last_wrong[i]) == max((k for k, now in enumerate(right) if not now), default=-1)
        assert float(table.confidence[i]) == pytest.approx(plain.fmean(p) if p else 0, abs=1e-9)
        assert float(table.variability[i]) == pytest.approx(plain.pstdev(p) if p else 0, abs=1e-7)
        assert float(table.correctness[i]) == pytest.approx(sum(right) / max(1, len(rows)))


def test_an_id_outside_the_table_is_refused() -> None:
    with pytest.raises(IndexError):
        ForgettingStatistics(3).update(torch.tensor([3]), torch.tensor([True]), torch.tensor([0.5]))


def trained_table() -> ForgettingStatistics:
    """8 presentations: 0-4 mislabelled (never learnt, steadily low), 5-9 hard but varying, the rest learnt."""
    table = ForgettingStatistics(50)
    generator = torch.Generator().manual_seed(0)
    for turn in range(8):
        confidence = 0.8 + 0.05 * torch.rand(50, generator=generator) + 0.01 * turn
        confidence[:5] = 0.1 + 0.01 * torch.rand(5, generator=generator)
        confidence[5:10] = 0.6 * torch.rand(5, generator=generator)
        correct = confidence > 0.7
        correct[10:20] = turn % 4 != 3
        correct[20] = turn % 2 == 0
        table.update(torch.arange(50), correct, confidence)
    return table


def test_suspects_are_those_never_learnt_with_low_and_steady_confidence() -> None:
    table = trained_table()
    suspects = table.suspects()
    assert set(suspects.tolist()) == {0, 1, 2, 3, 4}
    assert (table.confidence[suspects].diff() >= 0).all()
    assert len(ForgettingStatistics(4).suspects()) == 0


def test_forgettable_is_learnt_forgotten_and_not_all_the_time() -> None:
    table = trained_table()
    assert table.events[20] == 4
    assert table.most_events() == 2
    assert table.forgettable(torch.arange(50)).nonzero().squeeze(1).tolist() == list(range(10, 20))
    assert table.hopeless(torch.arange(50)).nonzero().squeeze(1).tolist() == [*range(10), 20]


def test_two_failures_are_not_yet_never_learnt() -> None:
    table = ForgettingStatistics(1)
    for turn in range(3):
        assert not table.never_learnt().any()
        table.update(torch.tensor([0]), torch.tensor([False]), torch.tensor([0.1 * turn]))
    assert table.never_learnt().all()


def test_reports_are_counted() -> None:
    table = ForgettingStatistics(4)
    table.suspect(torch.tensor([1, 3, 1]))
    table.suspect(torch.tensor([], dtype=torch.int64))
    assert table.suspected.tolist() == [0, 2, 0, 1]


def test_state_survives_a_file_of_tensors_bit_for_bit() -> None:
    first, second = trained_table(), ForgettingStatistics(50)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    for table in (first, second):
        table.update(torch.tensor([3, 20, 20]), torch.tensor([True, False, True]), torch.tensor([0.3, 0.4, 0.7]))
    for name, values in first.state_dict().items():
        assert torch.equal(values, second.state_dict()[name]), name
    with pytest.raises(ValueError, match="of 50 samples, not 3"):
        ForgettingStatistics(3).load_state_dict(first.state_dict())


def test_a_confidence_that_is_not_finite_counts_as_none() -> None:
    table = ForgettingStatistics(1)
    table.update(torch.tensor([0, 0]), torch.tensor([False, False]), torch.tensor([float("nan"), 1.0]))
    assert float(table.confidence) == 0.5


def logits_for(prediction: torch.Tensor) -> torch.Tensor:
    return 10 * torch.nn.functional.one_hot(prediction, 3).movedim(-1, 1).float()


def test_a_sample_is_correct_when_every_class_in_it_reaches_the_dice() -> None:
    y = torch.zeros(4, 10, 10, dtype=torch.int64)
    y[:, :4, :5] = 1
    y[:, 6:, :5] = 2
    prediction = y.clone()
    prediction[1, :2, :5] = 0  # Class 1 half missed: Dice 2/3.
    prediction[2, 5, :5] = 2  # Class 2 with 5 voxels too many: Dice 40/45.
    y[3, 6:], prediction[3, 6:] = IGNORE_LABEL, 1  # Whatever is predicted where nothing is known.
    assert is_correct(logits_for(prediction), y).tolist() == [True, False, True, True]
    assert is_correct(logits_for(prediction), y, dice=0.95).tolist() == [True, False, False, True]
    assert is_correct(logits_for(prediction), y, dice=0.6).all()


def test_an_empty_sample_is_correct_when_nearly_nothing_is_found_in_it() -> None:
    y = torch.zeros(2, 10, 10, dtype=torch.int64)
    prediction = y.clone()
    prediction[0, 0, 0] = 1
    prediction[1, 0, :2] = 1
    assert is_correct(logits_for(prediction), y).tolist() == [True, False]


def test_confidence_is_that_of_the_foreground_where_there_is_any() -> None:
    z = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    y = torch.randint(0, 3, (3, 6, 6), generator=torch.Generator().manual_seed(1))
    y[1] = 0
    y[2] = IGNORE_LABEL
    y[0, 0] = IGNORE_LABEL
    p = z.softmax(1)
    own = p[0].gather(0, y[0].clamp_max(2).unsqueeze(0))[0]
    mask = (y[0] > 0) & (y[0] < 3)
    expected = torch.stack([own[mask].mean(), p[1, 0].mean(), torch.tensor(0.0)])
    torch.testing.assert_close(true_class_confidence(z, y), expected)
