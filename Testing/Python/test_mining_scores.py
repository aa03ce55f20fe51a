"""Difficulty scores: the literal sums of Eq. 7 to 10, their closed forms, ranges and invariances."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ForgettableSegLib.mining.prototypes import IGNORE_LABEL, Prototypes, centred
from ForgettableSegLib.mining.scores import TermStatistics, difficulty_scores, estimated_difficulty

C = 4


def scene(seed: int = 0, shape: tuple[int, ...] = (5, 6)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(3, C, *shape, generator=generator)
    y = torch.randint(0, C, (3, *shape), generator=generator)
    return z, y


def trained(z: torch.Tensor, y: torch.Tensor, *, raw: bool = False) -> Prototypes:
    prototypes = Prototypes(C, C)
    for step in range(3):
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(step))
        logits = z + noise + 3 * torch.nn.functional.one_hot(y.clamp_max(C - 1), C).movedim(-1, 1)
        prototypes.update(logits if raw else centred(logits), y)
    return prototypes


def literal_paper(z: torch.Tensor, y: torch.Tensor, mu: torch.Tensor, eps: float) -> torch.Tensor:
    """Eq. 7 to 10 by the letter: masked features, sums over c and c', one scalar prototype a class."""
    m = torch.nn.functional.one_hot(y, C).movedim(-1, 1).float()
    f, p = z * m, z.softmax(1) * m
    hw = y[0].numel()
    dims = tuple(range(1, z.ndim))
    mu_map = mu.view(1, C, *[1] * (z.ndim - 2))
    t1 = ((f - mu_map) ** 2).sum(dims) / (C * hw)
    t2 = torch.zeros(len(z))
    for c, other in itertools.permutations(range(C), 2):
        t2 += (1 / ((f[:, c] - mu[other]) ** 2 + eps)).sum(tuple(range(1, z.ndim - 1))) / (C * (C - 1) * hw)
    t3 = ((p - m) ** 2).sum(dims) / (C * hw)
    t4 = 1 - p.sum(dims) / (C * hw)
    return torch.stack([t1, t2, t3, t4, t1 + t2 + t3 + t4], dim=1)


@pytest.mark.parametrize("eps", [1.0, 1e-2])
@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)])
def test_paper_mode_is_the_literal_sum(eps: float, shape: tuple[int, ...]) -> None:
    z, y = scene(shape=shape)
    prototypes = trained(z, y, raw=True)
    scores = difficulty_scores(z, y, prototypes, mode="paper", reduce="pixel", eps=eps)
    torch.testing.assert_close(scores.samples, literal_paper(z, y, prototypes.mean.diagonal(), eps))
    torch.testing.assert_close(scores.voxels.mean(tuple(range(2, z.ndim))), scores.samples)


def test_paper_mode_has_the_closed_forms_of_reading_s() -> None:
    z, y = scene(1)
    prototypes = trained(z, y, raw=True)
    mu, eps = prototypes.mean.diagonal(), 0.3
    t1, t2, t3, t4, _ = difficulty_scores(z, y, prototypes, mode="paper", reduce="pixel", eps=eps).samples.unbind(1)
    area = torch.nn.functional.one_hot(y, C).float().mean((1, 2))
    z_y = z.gather(1, y.unsqueeze(1)).squeeze(1)
    p_y = z.softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(t1, (((z_y - mu[y]) ** 2).mean((1, 2)) + ((1 - area) * mu**2).sum(1)) / C)
    torch.testing.assert_close(t3, ((1 - p_y) ** 2).mean((1, 2)) / C)
    torch.testing.assert_close(t4, 1 - p_y.mean((1, 2)) / C)
    masked = sum((1 - area[:, c]) / (mu[other] ** 2 + eps) for c, other in itertools.permutations(range(C), 2))
    own = sum(
        ((y == c) / ((z[:, c] - mu[other]) ** 2 + eps)).mean((1, 2)) for c, other in itertools.permutations(range(C), 2)
    )
    torch.testing.assert_close(t2, (masked + own) / (C * (C - 1)))


def test_paper_mode_with_untouched_prototypes_has_the_masked_floor() -> None:
    z, y = scene(2)
    t2 = difficulty_scores(z, y, Prototypes(C, C), mode="paper", reduce="pixel", eps=1e-6).samples[:, 1]
    assert (t2 >= (C - 1) / C / 1e-6).all()


def test_paper_terms_three_and_four_have_their_ranges() -> None:
    z, y = scene(3)
    samples = difficulty_scores(50 * z, y, trained(z, y, raw=True), mode="paper", reduce="pixel").samples
    assert ((samples[:, 2] >= 0) & (samples[:, 2] <= 1 / C)).all()
    assert ((samples[:, 3] >= 1 - 1 / C) & (samples[:, 3] <= 1)).all()


def bounded_of_one_voxel(f: torch.Tensor, z: torch.Tensor, y: int, prototypes: Prototypes) -> list[float]:
    d2 = ((f - prototypes.mean) ** 2).mean(1)
    s2, known = prototypes.variance, [k for k in range(C) if prototypes.count[k] > 0]
    p = z.softmax(0)[y]
    near = [float(s2[k] / (d2[k] + s2[k])) for k in known if k != y]
    return [float(d2[y] / (d2[y] + s2[y])), sum(near) / max(1, len(near)), float((1 - p) ** 2), float(1 - p)]


@pytest.mark.parametrize("penultimate", [False, True])
def test_bounded_mode_is_its_definition_voxel_by_voxel(penultimate: bool) -> None:
    z, y = scene(4)
    features = torch.randn(3, 7, 5, 6, generator=torch.Generator().manual_seed(9)) if penultimate else None
    prototypes = Prototypes(C, 7 if penultimate else C)
    y[y == 3] = 0  # Class 3 has no prototype.
    prototypes.update(centred(z) if features is None else features, y)
    scores = difficulty_scores(z, y, prototypes, features=features)
    f = centred(z) if features is None else features
    voxel = torch.zeros(3, 4, 5, 6)
    for b, i, j in itertools.product(range(3), range(5), range(6)):
        voxel[b, :, i, j] = torch.tensor(
            bounded_of_one_voxel(f[b, :, i, j], z[b, :, i, j], int(y[b, i, j]), prototypes)
        )
    torch.testing.assert_close(scores.voxels[:, :4], voxel, rtol=1e-4, atol=1e-5)
    by_class = [[voxel[b][:, y[b] == k].mean(1) for k in y[b].unique()] for b in range(3)]
    expected = torch.stack([torch.stack(means).mean(0) for means in by_class])
    torch.testing.assert_close(scores.samples[:, :4], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores.samples[:, 4], expected.sum(1), rtol=1e-4, atol=1e-5)


def test_reduced_by_class_a_small_structure_counts_as_much_as_the_background() -> None:
    y = torch.zeros(2, 10, 10, dtype=torch.int64)
    y[:, 0, 0] = 1
    z = torch.zeros(2, C, 10, 10)
    z[:, 0] = 20
    z[1, 1, 0, 0] = 40  # Only the second sample has the one voxel of class 1 right.
    prototypes = trained(z, y)
    by_class = difficulty_scores(z, y, prototypes, reduce="class").samples[:, 3]
    by_pixel = difficulty_scores(z, y, prototypes, reduce="pixel").samples[:, 3]
    torch.testing.assert_close(by_class, torch.tensor([0.5, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(by_pixel, torch.tensor([0.01, 0.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["bounded", "zscore", "paper"])
@pytest.mark.parametrize("reduce", ["class", "pixel"])
def test_padding_changes_no_score(mode: str, reduce: str) -> None:
    z, y = scene(5)
    prototypes = trained(z, y, raw=mode == "paper")
    statistics = TermStatistics()
    statistics.update(torch.rand(16, 4))
    statistics.frozen = True
    plain = difficulty_scores(z, y, prototypes, mode=mode, reduce=reduce, statistics=statistics)
    padded_y = torch.nn.functional.pad(y, (2, 3, 1, 0), value=IGNORE_LABEL).to(torch.uint8)
    padded_z = torch.nn.functional.pad(z, (2, 3, 1, 0), value=11.0)
    padded = difficulty_scores(padded_z, padded_y, prototypes, mode=mode, reduce=reduce, statistics=statistics)
    torch.testing.assert_close(padded.samples, plain.samples)
    torch.testing.assert_close(padded.voxels[..., 1:, 2:-3], plain.voxels)
    assert (padded.voxels[..., :2] == 0).all()


@pytest.mark.parametrize("mode", ["bounded", "paper"])
def test_a_sample_without_a_labelled_voxel_scores_zero(mode: str) -> None:
    z, y = scene(6)
    y[1] = IGNORE_LABEL
    scores = difficulty_scores(z, y, trained(z, y, raw=mode == "paper"), mode=mode)
    assert (scores.samples[1] == 0).all()
    assert (scores.samples[0, 4], scores.samples[2, 4]) > (0, 0)


def test_classes_without_a_prototype_have_no_distance_terms() -> None:
    z, y = scene(7)
    y[:] = 3
    y[0, :2] = 1
    prototypes = Prototypes(C, C)
    seen = torch.where(y == 3, IGNORE_LABEL, y)
    prototypes.update(centred(z), seen)
    scores = difficulty_scores(z, y, prototypes)
    assert (scores.samples[1:, :2] == 0).all()
    assert (scores.samples[1:, 2:4] > 0).all()
    only = difficulty_scores(z, seen, prototypes).samples[0, :2]
    torch.testing.assert_close(scores.samples[0, :2], only)


def test_untouched_prototypes_give_finite_bounded_scores() -> None:
    z, y = scene(8)
    scores = difficulty_scores(z, y, Prototypes(C, C))
    assert scores.samples.isfinite().all()
    assert scores.voxels.isfinite().all()


def test_bounded_scores_do_not_see_a_common_shift_of_the_logits() -> None:
    z, y = scene(9)
    prototypes = trained(z, y)
    a = difficulty_scores(z, y, prototypes).samples
    torch.testing.assert_close(difficulty_scores(z + 5, y, prototypes).samples, a, rtol=1e-4, atol=1e-5)


def test_a_wrong_label_scores_higher_in_every_term() -> None:
    y = torch.zeros(2, 8, 8, dtype=torch.int64)
    y[:, :, 4:] = 1
    z = 4 * torch.nn.functional.one_hot(y, C).movedim(-1, 1).float()
    z += 0.3 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    prototypes = Prototypes(C, C)
    prototypes.update(centred(z), y)
    wrong = y.clone()
    wrong[1] = 1 - y[1]
    samples = difficulty_scores(z, wrong, prototypes).samples
    assert (samples[1] > samples[0] + 0.2).all()


def test_weights_choose_the_terms_of_the_sum() -> None:
    z, y = scene(10)
    scores = difficulty_scores(z, y, trained(z, y), weights=(0.0, 2.0, 0.0, 1.0)).samples
    torch.testing.assert_close(scores[:, 4], 2 * scores[:, 1] + scores[:, 3])


def test_voxel_scores_can_be_left_out() -> None:
    z, y = scene(11)
    prototypes = trained(z, y)
    without = difficulty_scores(z, y, prototypes, voxels=False)
    assert without.voxels is None
    assert torch.equal(without.samples, difficulty_scores(z, y, prototypes).samples)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_that_would_overflow_are_scored_in_float32(dtype: torch.dtype) -> None:
    z, y = scene(12)
    z = (300 * z.sign()).to(dtype)
    prototypes = Prototypes(C, C)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prototypes.update(centred(z), y)
        scores = difficulty_scores(z, y, prototypes)
    assert scores.samples.dtype == scores.voxels.dtype == torch.float32
    assert scores.samples.isfinite().all()
    torch.testing.assert_close(scores.samples, difficulty_scores(z.float(), y, prototypes).samples)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([0.0, 1e-4, 1.0, 50.0, 1e4]),
    share=st.floats(0, 1),
    reduce=st.sampled_from(["class", "pixel"]),
)
def test_bounded_terms_lie_between_zero_and_one(seed: int, scale: float, share: float, reduce: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(2, C, 4, 4, generator=generator)
    y = torch.randint(0, C, (2, 4, 4), generator=generator)
    y[torch.rand(y.shape, generator=generator) < share] = IGNORE_LABEL
    prototypes = Prototypes(C, C)
    if seed % 2:
        prototypes.update(centred(z), y)
    samples, voxels = difficulty_scores(z, y, prototypes, reduce=reduce)
    for values in (samples[:, :4], voxels[:, :4]):
        assert ((values >= 0) & (values <= 1 + 1e-5)).all()
    assert ((samples[:, 4] >= 0) & (samples[:, 4] <= 4 + 1e-4)).all()


def test_zscore_standardises_each_term_by_its_history() -> None:
    z, y = scene(13)
    prototypes, statistics = trained(z, y), TermStatistics()
    first = difficulty_scores(z, y, prototypes, mode="zscore", statistics=statistics).samples[:, :4]
    torch.testing.assert_close(first.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(first.std(0, correction=0), torch.ones(4), atol=1e-2, rtol=0)
    statistics.frozen = True
    before = statistics.state_dict()
    again = difficulty_scores(z, y, prototypes, mode="zscore", statistics=statistics).samples[:, :4]
    assert torch.equal(again, first)
    assert statistics.count == before["count"] == 1


def test_term_statistics_follow_the_terms_and_survive_serialisation() -> None:
    generator = torch.Generator().manual_seed(0)
    statistics, copy = TermStatistics(), TermStatistics()
    scale, shift = torch.tensor([1.0, 10.0, 0.1, 3.0]), torch.tensor([0.0, 100.0, -5.0, 1.0])
    for _ in range(400):
        statistics.update(scale * torch.randn(32, 4, generator=generator) + shift)
    z = statistics.standardise(scale * torch.randn(20_000, 4, generator=generator) + shift)
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=0.1, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(4), atol=0.1, rtol=0)
    copy.load_state_dict(statistics.state_dict())
    terms = torch.rand(8, 4, generator=generator)
    statistics.update(terms)
    copy.update(terms)
    assert torch.equal(statistics.standardise(terms), copy.standardise(terms))


def test_a_term_that_never_varies_and_a_broken_sample_do_no_harm() -> None:
    statistics = TermStatistics()
    statistics.update(torch.ones(8, 4))
    statistics.update(torch.full((1, 4), float("nan")))
    assert (statistics.standardise(torch.ones(2, 4)) == 0).all()
    assert statistics.count == 1


def test_modes_that_lack_something_are_refused() -> None:
    z, y = scene(14)
    with pytest.raises(ValueError, match="statistics"):
        difficulty_scores(z, y, trained(z, y), mode="zscore")
    with pytest.raises(ValueError, match="unknown score mode"):
        difficulty_scores(z, y, trained(z, y), mode="other")
    with pytest.raises(ValueError, match="unknown reduction"):
        difficulty_scores(z, y, trained(z, y), reduce="voxel")
    with pytest.raises(ValueError, match="as many features as classes"):
        difficulty_scores(z, y, Prototypes(C, C + 1), mode="paper")


def test_estimated_difficulty_is_its_definition() -> None:
    z, y = scene(15)
    prototypes = trained(z, y)
    estimate = estimated_difficulty(z, prototypes)
    p, predicted = z.softmax(1).max(1)
    d = (centred(z).unsqueeze(1) - prototypes.mean.view(1, C, C, 1, 1)).square().mean(2).sqrt()
    for b, i, j in itertools.product(range(3), range(5), range(6)):
        own = int(predicted[b, i, j])
        other = min(float(d[b, k, i, j]) for k in range(C) if k != own)
        expected = float(d[b, own, i, j]) / (float(d[b, own, i, j]) + other)
        assert float(estimate[b, 1, i, j]) == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(estimate[:, 0], 1 - p)


def test_the_prototype_ratio_is_zero_on_a_prototype_and_one_half_between_two() -> None:
    mean = torch.tensor([[3.0, -1.5, -1.5], [-1.5, 3.0, -1.5], [-1.5, -1.5, 3.0]])
    prototypes = Prototypes.from_tensors(mean, torch.ones(3), torch.full((3,), 50))
    z = torch.stack([mean[0], (mean[0] + mean[1]) / 2], dim=1).unsqueeze(0)
    ratio = estimated_difficulty(z, prototypes)[0, 1]
    torch.testing.assert_close(ratio, torch.tensor([0.0, 0.5]), atol=1e-3, rtol=0)


def test_the_prototype_ratio_knows_classes_that_were_never_seen() -> None:
    z, _ = scene(16)
    predicted = z.argmax(1)
    prototypes = Prototypes.from_tensors(torch.eye(C), torch.ones(C), torch.tensor([5, 0, 5, 5]))
    ratio = estimated_difficulty(z, prototypes)[:, 1]
    assert (ratio[predicted == 1] == 1).all()
    assert ((ratio[predicted != 1] >= 0) & (ratio[predicted != 1] < 1)).all()
    lonely = Prototypes.from_tensors(torch.eye(C), torch.ones(C), torch.tensor([5, 0, 0, 0]))
    assert (estimated_difficulty(z, lonely)[:, 1][predicted == 0] == 0).all()
    nobody = estimated_difficulty(z, Prototypes(C, C))
    assert nobody.isfinite().all()
