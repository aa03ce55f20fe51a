"""Selection and admission: exact counts, running windows, and what becomes of wrong labels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ForgettableSegLib.mining.bank import SampleBank
from ForgettableSegLib.mining.forgetting import ForgettingStatistics, is_correct, true_class_confidence
from ForgettableSegLib.mining.prototypes import Prototypes, centred
from ForgettableSegLib.mining.scores import difficulty_scores
from ForgettableSegLib.mining.selection import HardCount, ScoreHistory, admission_is_open, ranking, select


def table(seed: int = 0, batch_size: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch_size, 5, generator=generator)
    return scores, torch.rand(batch_size, generator=generator), torch.arange(batch_size) % 4


@settings(max_examples=100, deadline=None)
@given(rho=st.floats(0, 1), sizes=st.lists(st.integers(1, 64), min_size=1, max_size=60))
def test_the_number_admitted_is_exact_to_less_than_one_sample(rho: float, sizes: list[int]) -> None:
    hard, total = HardCount(rho), 0
    for done, size in enumerate(sizes, start=1):
        count = hard.next(size)
        assert 0 <= count <= size
        total += count
        assert abs(total - rho * sum(sizes[:done])) < 1 + 1e-6


def test_a_batch_of_four_is_not_silently_left_out() -> None:
    hard = HardCount(0.1)
    counts = [hard.next(4) for _ in range(250)]
    assert set(counts) == {0, 1}
    assert sum(counts) == 100


def test_floating_point_does_not_lose_a_sample() -> None:
    assert int(0.29 * 100) == 28
    assert HardCount(0.29).next(100) == 29


def test_what_could_not_be_admitted_is_made_up_for_without_a_flood() -> None:
    hard = HardCount(0.1)
    n = hard.next(32)
    hard.give_back(n, 32)
    assert hard.next(32) == 6
    for _ in range(50):
        hard.give_back(hard.next(32), 32)
    assert hard.next(32) <= 6


def test_the_carry_survives_serialisation() -> None:
    first, second = HardCount(0.13), HardCount(0.13)
    for _ in range(5):
        first.next(7)
    second.load_state_dict(first.state_dict())
    assert [first.next(7) for _ in range(20)] == [second.next(7) for _ in range(20)]


@settings(max_examples=50, deadline=None)
@given(chunks=st.lists(st.integers(1, 9), min_size=1, max_size=12), q=st.floats(0, 1))
def test_the_history_holds_the_most_recent_values(chunks: list[int], q: float) -> None:
    history = ScoreHistory(7, minimum=1)
    seen = torch.zeros(0)
    for step, size in enumerate(chunks):
        values = torch.rand(size, generator=torch.Generator().manual_seed(step))
        history.observe(values)
        seen = torch.cat([seen, values])
        assert history.quantile(q) == pytest.approx(float(torch.quantile(seen[-7:], q)), abs=1e-6)


def test_the_history_skips_what_is_not_finite_and_is_restored_exactly() -> None:
    history, copy = ScoreHistory(4, minimum=3), ScoreHistory(4, minimum=3)
    with pytest.raises(ValueError, match="no score"):
        history.quantile(0.5)
    history.observe(torch.tensor([1.0, float("nan"), 2.0, float("inf")]))
    assert not history.ready
    history.observe(torch.tensor([3.0, 4.0, 5.0]))
    assert history.ready
    assert (history.quantile(0), history.quantile(1)) == (2, 5)
    copy.load_state_dict(history.state_dict())
    for one in (history, copy):
        one.observe(torch.tensor([9.0]))
    assert torch.equal(copy.values, history.values)
    with pytest.raises(ValueError, match="4 values"):
        ScoreHistory(5).load_state_dict(history.state_dict())


@pytest.mark.parametrize(("selection", "column"), [("score", 4), ("T1", 0), ("T2", 1), ("T3", 2), ("T4", 3)])
def test_topk_takes_the_hardest_by_the_chosen_term(selection: str, column: int) -> None:
    scores, losses, foreground = table()
    selected = select(scores, losses, foreground, 5, selection=selection, admission="topk")
    assert torch.equal(selected.admitted, scores[:, column].topk(5).indices)
    assert len(selected.suspects) == 0


def test_topk_by_loss() -> None:
    scores, losses, foreground = table()
    selected = select(scores, losses, foreground, 5, selection="loss", admission="topk")
    assert torch.equal(selected.admitted, losses.topk(5).indices)


def test_random_selection_repeats_with_its_generator_and_draws_all_alike() -> None:
    scores, losses, foreground = table()
    hits = torch.zeros(32)
    generator = torch.Generator().manual_seed(3)
    for _ in range(2000):
        hits[select(scores, losses, foreground, 4, selection="random", generator=generator).admitted] += 1
    assert ((hits > 180) & (hits < 330)).all()
    first, second = (
        select(scores, losses, foreground, 4, selection="random", generator=torch.Generator().manual_seed(8)).admitted
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_foreground_selection_prefers_samples_with_foreground_whatever_their_score() -> None:
    scores, losses, foreground = table()
    selected = select(scores, losses, foreground, 24, selection="foreground")
    assert (foreground[selected.admitted] > 0).all()
    assert (foreground[select(scores, losses, foreground, 26, selection="foreground").admitted] > 0).sum() == 24


def filled_history(seed: int = 1) -> ScoreHistory:
    history = ScoreHistory(1024)
    history.observe(torch.rand(1024, generator=torch.Generator().manual_seed(seed)))
    return history


@pytest.mark.parametrize(("window", "suspect_from"), [((0.70, 0.85), 0.95), ((0.5, 0.98), 0.98)])
def test_the_band_admits_within_its_window_and_reports_what_is_too_hard(
    window: tuple[float, float], suspect_from: float
) -> None:
    scores, losses, foreground = table(5, 128)
    history = filled_history()
    selected = select(scores, losses, foreground, 6, admission="band", window=window, history=history)
    low, high, suspect = (history.quantile(q) for q in (*window, suspect_from))
    values = scores[:, 4]
    within = values[(values >= low) & (values <= high)].sort(descending=True).values
    assert torch.equal(values[selected.admitted], within[:6])
    assert torch.equal(values[selected.suspects], values[values > suspect].sort(descending=True).values)
    assert len(selected.suspects) > 0


def test_the_band_waits_until_a_quantile_means_something() -> None:
    scores, losses, foreground = table()
    history = ScoreHistory(1024, minimum=64)
    first = select(scores, losses, foreground, 3, history=history)
    assert len(first.admitted) == len(first.suspects) == 0
    assert len(select(scores, losses, foreground, 3, history=history).admitted) == 3


def test_while_closed_the_history_fills_and_nothing_is_admitted_or_reported() -> None:
    scores, losses, foreground = table()
    history = filled_history()
    before = history.seen
    closed = select(scores, losses, foreground, 3, history=history, is_open=False)
    assert len(closed.admitted) == len(closed.suspects) == 0
    assert history.seen == before + 32


def test_admission_opens_when_every_class_that_exists_is_settled() -> None:
    assert not admission_is_open(torch.tensor([50, 9, 50]))
    assert admission_is_open(torch.tensor([50, 10, 50]))
    assert admission_is_open(torch.tensor([50, 0, 50]), exists=torch.tensor([True, False, True]))
    assert not admission_is_open(torch.tensor([50, 4, 2]), minimum=4, exists=torch.tensor([True, False, True]))


def test_a_random_selection_has_no_suspects_in_a_band() -> None:
    scores, losses, foreground = table()
    for selection in ("random", "foreground"):
        selected = select(scores, losses, foreground, 3, selection=selection, history=filled_history())
        assert len(selected.admitted) == 3
        assert len(selected.suspects) == 0


def test_only_eligible_samples_with_finite_scores_are_admitted() -> None:
    scores, losses, foreground = table()
    scores[3] = float("nan")
    scores[4] = float("inf")
    eligible = torch.arange(32) < 10
    selected = select(scores, losses, foreground, 32, admission="topk", eligible=eligible)
    assert sorted(selected.admitted.tolist()) == [0, 1, 2, 5, 6, 7, 8, 9]
    banded = select(scores, losses, foreground, 32, history=filled_history(), eligible=eligible)
    assert not {3, 4} & {*banded.admitted.tolist(), *banded.suspects.tolist()}


def test_forgetting_admits_what_was_learnt_and_forgotten_and_reports_the_never_learnt() -> None:
    statistics = ForgettingStatistics(40)
    everyone = torch.arange(40)
    histories = {0: [0, 0, 0, 0, 0, 0], 1: [1, 1, 1, 1, 1, 1], 2: [1, 0, 1, 0, 1, 0]}
    for turn in range(6):
        correct = torch.tensor([histories.get(i, [1, 1, 0, 1, 1, 1])[turn] for i in range(40)]).bool()
        statistics.update(everyone, correct, correct.float())
    scores = torch.linspace(1, 0, 40).view(-1, 1).expand(40, 5)
    selected = select(
        scores, scores[:, 0], scores[:, 0], 4, admission="forgetting", ids=everyone, forgetting=statistics
    )
    assert selected.admitted.tolist() == [3, 4, 5, 6]
    assert selected.suspects.tolist() == [0, 2]
    low = select(
        scores.flip(0), scores[:, 0], scores[:, 0], 4, admission="forgetting", ids=everyone, forgetting=statistics
    )
    assert len(low.suspects) == 0  # What is never learnt but easy for the score is no news.


def test_choices_that_lack_something_are_refused() -> None:
    scores, losses, foreground = table()
    with pytest.raises(ValueError, match="unknown selection"):
        ranking(scores, losses, foreground, selection="best")
    with pytest.raises(ValueError, match="unknown admission"):
        select(scores, losses, foreground, 3, admission="best")
    with pytest.raises(ValueError, match="history"):
        select(scores, losses, foreground, 3, admission="band")
    with pytest.raises(ValueError, match="forgetting statistics"):
        select(scores, losses, foreground, 3, admission="forgetting")


def noisy_discs(count: int, share: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of one disc each, bright to faint, their labels, and which labels were exchanged for another image's."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij"))
    centre = 4 + 12 * torch.rand(count, 2, 1, 1, generator=generator)
    radius = 2 + 2 * torch.rand(count, 1, 1, generator=generator)
    y = ((grid - centre).square().sum(1).sqrt() < radius).long()
    brightness = 0.3 + 0.9 * torch.rand(count, 1, 1, 1, generator=generator)
    x = brightness * y.unsqueeze(1) + 0.6 * torch.randn(count, 1, 20, 20, generator=generator)
    wrong = torch.rand(count, generator=generator) < share
    y[wrong] = y[wrong].roll(1, dims=0)
    return x, y, wrong


def test_band_and_forgetting_keep_wrong_labels_out_of_the_bank_that_topk_collects() -> None:
    torch.manual_seed(0)
    x, y, wrong = noisy_discs(480, 0.10)
    body = [torch.nn.Conv2d(1, 8, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU()]
    net = torch.nn.Sequential(*body, torch.nn.Conv2d(8, 2, 1))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    prototypes, history, statistics = Prototypes(2, 2), ScoreHistory(), ForgettingStatistics(len(x))
    banks = {admission: SampleBank(48) for admission in ("topk", "band", "forgetting")}
    share = dict.fromkeys(banks, 0.0)
    reported = torch.zeros(len(x))
    for iteration in range(300):
        ids = torch.randperm(len(x))[:32]
        z = net(x[ids])
        optimiser.zero_grad()
        losses = torch.nn.functional.cross_entropy(z, y[ids], reduction="none").mean((1, 2))
        losses.mean().backward()
        optimiser.step()
        prototypes.update(centred(z), y[ids])
        statistics.update(ids, is_correct(z, y[ids]), true_class_confidence(z, y[ids]))
        scores = difficulty_scores(z, y[ids], prototypes, voxels=False).samples
        for admission, bank in banks.items():
            selected = select(
                scores, losses, y[ids].sum((1, 2)), 3, admission=admission, ids=ids, forgetting=statistics,
                history=history if admission == "band" else None, eligible=bank.may_enter(ids), is_open=iteration >= 50,
            )  # fmt: skip
            new = selected.admitted
            bank.admit(ids[new], {"references": ids[new, None]}, scores=scores[new, 4], iteration=iteration)
            if iteration >= 150:
                share[admission] += float(wrong[bank.ids].float().mean()) / 150
            if admission == "band":
                reported[ids[selected.suspects]] += 1
    base = float(wrong.float().mean())
    assert share["topk"] > 2.5 * base
    assert share["band"] < 0.3 * share["topk"]
    assert share["forgetting"] < base
    assert float(wrong[reported.topk(15).indices].float().mean()) > 0.6, "the review list should lead with wrong labels"
