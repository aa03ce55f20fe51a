"""SCDL: distributions of the classes, their losses against closed forms, and runs that learn and use them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from synthetic import write_cases
from training_cases import CPU, Listener, assert_same, resume, train

from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.cases.labels import IGNORE_LABEL
from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.inference.predictor import Predictor
from ForgettableSegLib.mining.prototypes import LearnedPrototypes, Prototypes
from ForgettableSegLib.mining.scores import difficulty_scores
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.distributions import EMBEDDING, ClassDistributions, pooled
from ForgettableSegLib.training.distribution_loss import (
    anchor_loss,
    assignments,
    distance_loss,
    distribution_loss,
    divergence,
    proxy_loss,
    pseudo_labels,
    soft_labels,
)
from ForgettableSegLib.training.export import model_package
from ForgettableSegLib.training.losses import gradient_aware_cross_entropy, gradient_aware_dice_loss, soft_dice_loss

SCDL = {"aux_loss": "scdl", "prototypes": "scdl"}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> CaseList:
    return write_cases(tmp_path_factory.mktemp("cases"), 6, shape=(4, 20, 18))


@pytest.fixture
def distributions() -> ClassDistributions:
    torch.manual_seed(0)
    return ClassDistributions(4, 6)


@pytest.mark.parametrize("size", [(8, 12), (7, 10), (3, 2), (4, 8, 5)])
def test_soft_labels_are_the_shares_of_a_block(size: tuple[int, ...]) -> None:
    labels = torch.randint(0, 4, (2, *size))
    weights, trust = soft_labels(labels, 4)
    torch.testing.assert_close(weights.sum(1), trust)
    assert trust.min() == 1
    # The tokens of features and labels are the same blocks.
    one_hot = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()
    torch.testing.assert_close(pooled(one_hot).flatten(2), weights)


def test_blocks_without_label_are_not_trusted_and_half_labelled_ones_count_what_is_labelled() -> None:
    labels = torch.full((1, 8, 8), IGNORE_LABEL)
    labels[0, :2, :4], labels[0, 2, 0] = 1, 2
    weights, trust = soft_labels(labels, 3)
    assert trust.tolist() == [[1, 0, 0, 0]]
    torch.testing.assert_close(weights[0, :, 0], torch.tensor([0.0, 8 / 9, 1 / 9]))


def test_the_mean_of_the_samples_stands_for_all_of_them(distributions: ClassDistributions) -> None:
    noise = torch.randn(7, 4, EMBEDDING)
    e = distributions.embed(torch.randn(2, 6, 5))
    samples = torch.nn.functional.normalize(distributions.mean + distributions.deviation * noise, dim=2)
    slow = torch.einsum("scz,bzl->bscl", samples, e).mean(1)
    fast = torch.einsum("cz,bzl->bcl", distributions.sampled_mean(noise), e)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(e.norm(dim=1), torch.ones(2, 5))


def test_closed_forms_of_the_losses() -> None:
    weights = torch.eye(3).unsqueeze(0)  # each of three tokens is one class
    trust = torch.ones(1, 3)
    perfect = 2 * weights - 1
    assert proxy_loss(perfect, weights, trust) == pytest.approx(math.exp(-1))
    assert proxy_loss(-perfect, weights, trust) == pytest.approx(math.e)
    assert proxy_loss(torch.zeros(1, 3, 3), weights, trust) == pytest.approx(1)
    assert distance_loss(perfect, weights, trust) == pytest.approx(0)
    assert distance_loss(-perfect, weights, trust) == pytest.approx(2)
    # A token of two halves is drawn to neither: (2 w - 1) is 0.
    half = torch.full((1, 2, 4), 0.5)
    assert proxy_loss(torch.rand(1, 2, 4), half, torch.ones(1, 4)) == pytest.approx(1)
    # What is not trusted changes nothing.
    some = torch.tensor([[1.0, 1.0, 0.0]])
    spoilt = perfect.clone()
    spoilt[..., 2] = 0.3
    assert proxy_loss(spoilt, weights, some) == pytest.approx(math.exp(-1))


def test_an_anchor_on_its_proxy_costs_nothing_and_moves_no_encoder(distributions: ClassDistributions) -> None:
    inputs, weights, trust = torch.randn(2, 6, 9), torch.zeros(2, 4, 9), torch.ones(2, 9)
    weights[:, 1, :4], weights[:, 2, 4:] = 1, 1
    with torch.no_grad():
        for c in (1, 2):
            of_class = inputs.permute(0, 2, 1)[weights[:, c] > 0].mean(0)
            distributions.mean[c] = 3 * distributions.embed(of_class.view(1, 6, 1))[0, :, 0]
    assert anchor_loss(distributions, inputs, weights, trust).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        distributions.mean[2] *= -1
    loss = anchor_loss(distributions, inputs, weights, trust)
    assert loss.item() == pytest.approx(1)  # 0 and 2; the other two classes are absent
    loss.backward()
    assert all(parameter.grad is None for parameter in distributions.encoder.parameters())
    assert distributions.mean.grad[[0, 3]].abs().max() == 0


def test_tokens_and_classes_are_two_directions() -> None:
    cosines = torch.rand(2, 3, 8) * 2 - 1
    e2p, p2e = assignments(cosines)
    torch.testing.assert_close(e2p.sum(1), torch.ones(2, 8))
    torch.testing.assert_close(p2e.sum(2), torch.ones(2, 3))
    p, q = e2p, p2e / p2e.sum(1, keepdim=True)
    assert divergence(p, q).min() >= 0
    assert divergence(p, q).mean() > 0.01, "in the released code it is exactly 0"
    assert divergence(p, p).abs().max() == 0
    weights, trust = pseudo_labels(cosines)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 8))
    assert trust.min() > 0
    assert trust.max() <= 1
    # The order of the tokens is nothing.
    order = torch.randperm(8)
    torch.testing.assert_close(pseudo_labels(cosines[..., order])[0], weights[..., order])


def test_the_order_of_the_classes_is_nothing(distributions: ClassDistributions) -> None:
    tokens = distributions(torch.randn(2, 6, 8, 8))
    labels = torch.randint(0, 4, (2, 8, 8))
    loss = distribution_loss(distributions, tokens, labels)
    order = torch.tensor([2, 0, 3, 1])
    permuted = ClassDistributions(4, 6)
    permuted.load_state_dict(distributions.state_dict())
    with torch.no_grad():
        permuted.mean.copy_(distributions.mean[order])
    relabelled = torch.argsort(order)[labels]
    other = distribution_loss(permuted, tokens._replace(cosines=tokens.cosines[:, order]), relabelled)
    torch.testing.assert_close(other, loss)


def test_distances_are_mahalanobis_on_the_sphere(distributions: ClassDistributions) -> None:
    features = torch.randn(1, 6, 3, 2)
    found = distributions.distances(features)
    e = distributions.embed(features.flatten(2))
    length = distributions.mean.norm(dim=1, keepdim=True)
    apart = e.unsqueeze(1) - (distributions.mean / length)[None, :, :, None]
    z = apart / (distributions.deviation / length)[..., None]
    torch.testing.assert_close(found.flatten(2), z.square().mean(2), rtol=1e-3, atol=1e-4)


def test_learnt_prototypes_score_by_the_distances_they_are_given() -> None:
    distances, labels = torch.rand(2, 3, 4, 4) + 0.1, torch.randint(0, 3, (2, 4, 4))
    prototypes = LearnedPrototypes(3, 0, beta=0.0)
    prototypes.update(distances, labels)
    for k in range(3):
        assert prototypes.variance[k] == pytest.approx(float(distances[:, k][labels == k].mean()))
    before = distances.clone()
    scores = difficulty_scores(torch.randn(2, 3, 4, 4), labels, prototypes, features=distances)
    assert torch.equal(distances, before)
    own = distances.gather(1, labels.unsqueeze(1))[:, 0]
    torch.testing.assert_close(scores.voxels[:, 0], own / (own + prototypes.variance[labels]))
    assert isinstance(Prototypes.from_tensors(**prototypes.state_dict()), LearnedPrototypes)
    with pytest.raises(ValueError, match="do not fit 3 classes"):
        prototypes.update(distances[:, :2], labels)


def test_gradient_aware_dice_sees_an_absent_class() -> None:
    logits, labels = torch.randn(1, 3, 6, 6), torch.randint(0, 2, (1, 6, 6))
    p = logits.softmax(1)
    of_present = soft_dice_loss(logits, labels) * 2 - 1  # plain Dice of class 2 is 1 (all but its smoothing)
    expected = (of_present + p[:, 2].square().mean()) / 2
    assert float(gradient_aware_dice_loss(logits, labels)) == pytest.approx(float(expected), abs=1e-4)
    # By beta the gradient to the probability of the absent class is p / n, not 2 p / n.
    alone = torch.zeros(1, 2, 1, 1, requires_grad=True)
    gradient_aware_dice_loss(alone, torch.zeros(1, 1, 1, dtype=torch.long)).backward()
    assert alone.grad[0, 1].item() == pytest.approx(0.5 * 0.25)  # p (dp/dz), with p = 1/2


def test_gradient_aware_cross_entropy_is_that_of_the_hardest_tenth() -> None:
    # Equal classes weigh 1, so it is the mean of the ten largest of a hundred cross-entropies.
    labels = torch.arange(100).view(1, 10, 10) % 2
    logits = torch.randn(1, 2, 10, 10)
    entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="none").flatten()
    assert gradient_aware_cross_entropy(logits, labels) == pytest.approx(float(entropy.topk(10).values.mean()))
    # One voxel of class 1 among 99: by n^(-1/2) it weighs sqrt(99) times as much.
    labels = torch.zeros(1, 10, 10, dtype=torch.long)
    labels[0, 0, 0] = 1
    weights = torch.tensor([99.0, 1.0]).rsqrt() * 100 / torch.tensor([99.0, 1.0]).sqrt().sum()
    ten = torch.cat([weights[1:], weights[:1].expand(9)]).mean() * math.log(2)
    assert gradient_aware_cross_entropy(torch.zeros(1, 2, 10, 10), labels) == pytest.approx(float(ten))
    assert gradient_aware_cross_entropy(torch.randn(1, 2, 4, 4), torch.full((1, 4, 4), IGNORE_LABEL)) == 0


def test_a_run_with_distributions_resumes_bit_for_bit_and_its_package_scores(cases: CaseList, tmp_path: Path) -> None:
    settings = {**SCDL, "iterations": 10, "validate_every": 5, "loss": "ga_dice_ce", "weight_average": 0.9}
    whole = train(cases, tmp_path / "whole", settings=settings)
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "cut", Listener(stop_at=4), settings=settings)
    assert_same(whole, resume(tmp_path / "cut"))
    history = (tmp_path / "whole" / "history.csv").read_text()
    assert history == (tmp_path / "cut" / "history.csv").read_text()
    assert "aux_loss" in history
    path = model_package(whole, device=CPU, calibration={}).write(tmp_path / "model.zip")
    package = ModelPackage.read(path)
    assert package.prototypes["mean"].shape == (3, 0)
    predictor = Predictor(package, CPU)
    found = predictor.segment_case(next(iter(cases)))
    assert set(found.difficulty) == {"confidence", "prototype_ratio"}
    # Fine-tuned, the distributions go on from where they were, and without the loss they are left out.
    again = train(cases, tmp_path / "again", settings={**SCDL, "iterations": 1, "learning_rate": 1e-8}, start=package)
    mean = package.network().distributions.mean
    torch.testing.assert_close(again.network.distributions.mean, mean, rtol=1e-3, atol=1e-4)
    plain = train(cases, tmp_path / "plain", settings={"iterations": 1}, start=package)
    assert plain.network.distributions is None
    with pytest.raises(ForgettableSegError, match="none that its network has learnt") as caught:
        package.with_parts({"network": {**package.card["network"], "distributions": False}})
    assert caught.value.code == ErrorCode.MODEL_INVALID
