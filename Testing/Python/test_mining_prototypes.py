"""Prototypes: closed forms of Eq. 5 and 6, absent classes, precision, pooling over ranks."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ForgettableSegLib.mining.prototypes import IGNORE_LABEL, Prototypes, centred, full_precision


def batch(seed: int = 0, *, classes: int = 3, features: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    f = torch.randn(4, features, 6, 7, generator=generator)
    return f, torch.randint(0, classes, (4, 6, 7), generator=generator)


def class_mean(f: torch.Tensor, y: torch.Tensor, k: int) -> torch.Tensor:
    return f.movedim(1, -1)[y == k].mean(0)


def test_from_zero_the_mean_of_constant_features_is_one_minus_beta_to_the_t() -> None:
    f, y = batch()
    prototypes = Prototypes(3, 5, warm_up=False)
    for t in range(1, 101):
        prototypes.update(f, y)
        if t in (1, 7, 100):
            expected = (1 - 0.99**t) * torch.stack([class_mean(f, y, k) for k in range(3)])
            torch.testing.assert_close(prototypes.mean, expected, rtol=1e-4, atol=1e-6)
    assert 0.62 < 1 - 0.99**100 < 0.64


def test_warm_up_follows_its_recursion_with_the_counter_of_each_class() -> None:
    prototypes = Prototypes(3, 5)
    mean, count = torch.zeros(3, 5), [0, 0, 0]
    for step in range(12):
        f, y = batch(step)
        if step % 3:
            y[y == 2] = 1
        prototypes.update(f, y)
        for k in range(3):
            if (y == k).any():
                beta = min(0.99, (1 + count[k]) / (10 + count[k]))
                mean[k] = beta * mean[k] + (1 - beta) * class_mean(f, y, k)
                count[k] += 1
    torch.testing.assert_close(prototypes.mean, mean)
    assert prototypes.count.tolist() == count == [12, 12, 4]


def test_warm_up_follows_growing_logits_where_the_start_from_zero_lags() -> None:
    warm, zero = Prototypes(1, 1), Prototypes(1, 1, warm_up=False)
    y = torch.zeros(1, 2, 2, dtype=torch.int64)
    for t in range(1, 101):
        truth = 8 * (1 - 2.718281828 ** (-t / 80))
        f = torch.full((1, 1, 2, 2), truth)
        warm.update(f, y)
        zero.update(f, y)
    assert truth == pytest.approx(5.71, abs=0.01)
    assert float(warm.mean) == pytest.approx(5.38, abs=0.1)
    assert float(zero.mean) == pytest.approx(2.48, abs=0.1)


def test_the_spread_is_the_mean_squared_distance_to_the_updated_prototype() -> None:
    f, y = batch()
    prototypes = Prototypes(3, 5)
    prototypes.update(f, y)
    for k in range(3):
        own = f.movedim(1, -1)[y == k]
        expected = 0.9 * ((own - prototypes.mean[k]) ** 2).sum(1).mean() / 5
        torch.testing.assert_close(prototypes.variance[k], expected)


def test_the_spread_of_normal_features_converges_to_their_variance() -> None:
    generator = torch.Generator().manual_seed(1)
    prototypes = Prototypes(2, 4)
    y = torch.arange(2).view(1, 2, 1).expand(8, 2, 64).clone()
    for _ in range(100):
        f = torch.randn(8, 4, 2, 64, generator=generator)
        f[:, :, 1] = 3 * f[:, :, 1] + 10
        prototypes.update(f, y)
    torch.testing.assert_close(prototypes.mean, torch.tensor([[0.0], [10.0]]).expand(2, 4), atol=0.2, rtol=0)
    torch.testing.assert_close(prototypes.variance, torch.tensor([1.0, 9.0]), rtol=0.1, atol=0)


def test_an_absent_class_keeps_its_prototype_and_nothing_becomes_nan() -> None:
    prototypes = Prototypes(3, 5)
    prototypes.update(*batch())
    before = prototypes.state_dict()
    f, _ = batch(1)
    prototypes.update(f, torch.zeros(4, 6, 7, dtype=torch.int64))
    assert torch.equal(prototypes.mean[1:], before["mean"][1:])
    assert torch.equal(prototypes.variance[1:], before["variance"][1:])
    assert prototypes.count.tolist() == [2, 1, 1]
    assert not torch.equal(prototypes.mean[0], before["mean"][0])


def test_fewer_voxels_than_the_minimum_count_as_absent() -> None:
    prototypes = Prototypes(2, 5, min_pixels=10)
    f, _ = batch()
    y = torch.zeros(4, 6, 7, dtype=torch.int64)
    y.view(-1)[:9] = 1
    prototypes.update(f, y)
    assert prototypes.count.tolist() == [1, 0]
    y.view(-1)[9] = 1
    prototypes.update(f, y)
    assert prototypes.count.tolist() == [2, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_are_never_taken_in(value: float) -> None:
    prototypes = Prototypes(3, 5)
    prototypes.update(*batch())
    before = prototypes.mean.clone()
    f, y = batch(2)
    f[0, 2, 0, 0] = value
    prototypes.update(f, y)
    assert prototypes.mean.isfinite().all()
    assert prototypes.variance.isfinite().all()
    assert torch.equal(prototypes.mean[y[0, 0, 0]], before[y[0, 0, 0]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_ignored_voxels_take_no_part(dtype: torch.dtype) -> None:
    f, y = batch()
    y[:, :, 5:] = IGNORE_LABEL
    cropped, padded = Prototypes(3, 5), Prototypes(3, 5)
    cropped.update(f[..., :5], y[..., :5].to(dtype))
    f[..., 5:] = 1e6
    padded.update(f, y.to(dtype))
    torch.testing.assert_close(padded.mean, cropped.mean)
    torch.testing.assert_close(padded.variance, cropped.variance)


def test_two_ranks_end_with_the_prototypes_of_the_whole_batch() -> None:
    f, y = batch()
    y[:2][y[:2] == 2] = 0  # The first rank sees no voxel of class 2.
    whole, ranks = Prototypes(3, 5), [Prototypes(3, 5), Prototypes(3, 5)]
    whole.update(f, y)
    shares = [(f[:2], y[:2]), (f[2:], y[2:])]
    totals: list[torch.Tensor] = []
    for share in shares:
        Prototypes(3, 5).update(*share, all_reduce=lambda t: totals.append(t.clone()))
    for rank, share in zip(ranks, shares, strict=True):
        rank.update(*share, all_reduce=lambda t: t.copy_(totals[0] + totals[1]))
    assert torch.equal(ranks[0].mean, ranks[1].mean)
    assert torch.equal(ranks[0].variance, ranks[1].variance)
    torch.testing.assert_close(ranks[0].mean, whole.mean)
    torch.testing.assert_close(ranks[0].variance, whole.variance)
    assert ranks[0].count.tolist() == [1, 1, 1]


def test_under_bfloat16_autocast_the_running_mean_stays_float32_and_moves() -> None:
    y = torch.zeros(2, 4, 4, dtype=torch.int64)
    prototypes = Prototypes(1, 1)
    prototypes.load_state_dict(
        {"mean": torch.tensor([[5.0]]), "variance": torch.tensor([1.0]), "count": torch.tensor([1000])}
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(2000):
            prototypes.update(torch.full((2, 1, 4, 4), 6.0, dtype=torch.bfloat16), y)
    assert prototypes.mean.dtype == prototypes.variance.dtype == torch.float32
    assert float(prototypes.mean) == pytest.approx(6, abs=1e-3)


def test_the_result_does_not_depend_on_autocast() -> None:
    f, y = batch()
    plain, cast = Prototypes(3, 5), Prototypes(3, 5)
    plain.update(f, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast.update(f, y)
    assert torch.equal(plain.mean, cast.mean)
    assert torch.equal(plain.variance, cast.variance)


def test_no_graph_is_kept() -> None:
    f, y = batch()
    prototypes = Prototypes(3, 5)
    prototypes.update(f.requires_grad_(), y)
    assert not prototypes.mean.requires_grad


def test_state_survives_a_file_of_tensors_bit_for_bit() -> None:
    first, second = Prototypes(3, 5), Prototypes(3, 5)
    first.update(*batch())
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    for step in range(1, 4):
        first.update(*batch(step))
        second.update(*batch(step))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.variance, second.variance)
    assert torch.equal(first.count, second.count)


def test_a_state_of_another_task_is_refused() -> None:
    with pytest.raises(ValueError, match="mean of the stored prototypes"):
        Prototypes(3, 5).load_state_dict(Prototypes(4, 5).state_dict())


def test_shapes_that_do_not_fit_are_refused() -> None:
    f, y = batch()
    for features, labels in ((f[:, :4], y), (f, y[:3]), (f, y[..., :3])):
        with pytest.raises(ValueError, match="do not fit"):
            Prototypes(3, 5).update(features, labels)


def test_centred_logits_have_no_common_part() -> None:
    z = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(centred(z), centred(z + 7))
    torch.testing.assert_close(centred(z).sum(1), torch.zeros(2, 4, 4), atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(1, 5), (3, 4), (2, 3, 4)]),
    warm_up=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_prototypes_stay_finite_and_within_the_features(
    seed: int, shape: tuple[int, ...], warm_up: bool, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    prototypes = Prototypes(4, 2, warm_up=warm_up)
    for _ in range(3):
        f = scale * torch.randn(2, 2, *shape, generator=generator)
        choices = torch.tensor([0, 1, 3, IGNORE_LABEL])
        y = choices[torch.randint(0, 4, (2, *shape), generator=generator)]
        prototypes.update(f, y)
    assert prototypes.mean.isfinite().all()
    assert (prototypes.variance >= 0).all()
    assert prototypes.variance.isfinite().all()
    assert prototypes.mean.abs().max() <= 5 * scale
    assert prototypes.count[2] == 0
    assert (prototypes.mean[2] == 0).all()


def test_full_precision_holds_on_a_device_without_autocast_as_well() -> None:
    a = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision(torch.device("cpu")):
            assert (a @ a).dtype == torch.float32
        with full_precision(torch.device("meta")):
            pass
        assert (a @ a).dtype == torch.bfloat16
