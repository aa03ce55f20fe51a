"""Calibration on held-out prepared cases: what is counted, and that percentiles follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ForgettableSegLib.inference.calibration import calibrate
from ForgettableSegLib.inference.difficulty import Calibration
from ForgettableSegLib.inference.scoring import Scorer, feature_kind
from ForgettableSegLib.mining.prototypes import Prototypes
from ForgettableSegLib.mining.scores import difficulty_scores, estimated_difficulty


class TwoLevels(nn.Module):
    """Binary: the logit of the foreground is the image, that of the background 0; the features are the image, twice."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(image), image], dim=1)

    def forward_with_features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self(image), torch.cat([image, image, image], dim=1)

    def forward_with_maps(self, image: Tensor, kind: str) -> Tensor:
        return torch.cat(self.forward_with_features(image), dim=1) if kind == "penultimate" else self(image)


@dataclass
class Prepared:
    image: np.ndarray
    label: np.ndarray
    released: int = 0

    def release(self) -> None:
        self.released += 1


def odds(confidence: float) -> float:
    return float(np.log(confidence / (1 - confidence)))


@pytest.fixture
def case() -> Prepared:
    image = np.full((1, 4, 20, 20), odds(0.001), dtype=np.float32)
    label = np.zeros((4, 20, 20), dtype=np.uint8)
    image[0, 1, 5:8, 5:10] = odds(0.9)
    image[0, 2, 5:8, 5:10] = odds(0.6)
    label[1:3, 5:8, 5:10] = 1
    label[3, 5:8, 5:10] = 1  # missed by the network: counts for the audit only
    return Prepared(image, label)


def prototypes(features: int = 2) -> Prototypes:
    mean = torch.stack([torch.full((features,), -3.0), torch.full((features,), 3.0)])
    return Prototypes.from_tensors(mean, torch.ones(2), torch.ones(2, dtype=torch.int64))


def histograms(tensors: dict[str, Tensor], name: str) -> dict[int, int]:
    return {index: int(count) for index, count in enumerate(tensors[f"calibration.{name}"]) if count}


def bin_of(value: float, largest: float = 1.0) -> int:
    return int(value / largest * 512)


def test_counts_are_those_of_the_dilated_foreground(case: Prepared) -> None:
    tensors = calibrate(TwoLevels(), prototypes(), [case, case], spatial_dims=2, patch_size=(8, 8), device="cpu")
    assert set(tensors) == {
        f"calibration.{channel}_{level}"
        for channel in ("confidence", "prototype_ratio", "score")
        for level in ("voxel", "slice", "case", "class1")
    }
    inside, ring = 15, 7 * 9 - 15
    assert histograms(tensors, "confidence_voxel") == {
        bin_of(0.001): 2 * 2 * ring,
        bin_of(0.1): 2 * inside,
        bin_of(0.4): 2 * inside,
    }
    slices = [(share * inside + 0.001 * ring) / 63 for share in (0.1, 0.4)]
    assert histograms(tensors, "confidence_slice") == {bin_of(value): 2 for value in slices}
    assert histograms(tensors, "confidence_case") == {bin_of(sum(slices) / 2): 2}
    assert tensors["calibration.score_voxel"].sum() == 2 * 3 * 63, "three slices of the reference"
    assert case.released == 2


def test_volumes_are_dilated_along_all_axes(case: Prepared) -> None:
    tensors = calibrate(TwoLevels(), prototypes(), [case], spatial_dims=3, patch_size=(4, 8, 8), device="cpu")
    assert tensors["calibration.confidence_voxel"].sum() == 4 * 63
    assert tensors["calibration.confidence_slice"].sum() == 2, "slices that hold the class itself"


@pytest.mark.parametrize("kind", ["centred", "logits", "penultimate"])
def test_scores_use_the_features_that_the_prototypes_are_means_of(case: Prepared, kind: str) -> None:
    network, image = TwoLevels(), torch.from_numpy(case.image).transpose(0, 1)
    logits, features = network.forward_with_features(image)
    centred = logits - logits.mean(1, keepdim=True)
    expected_features = {"centred": centred, "logits": logits, "penultimate": features}[kind]
    known = prototypes(expected_features.shape[1])
    estimated = estimated_difficulty(logits, known, features=expected_features)
    labels = torch.from_numpy(case.label)
    scores = difficulty_scores(logits, labels, known, features=expected_features).voxels
    scorer = Scorer(known, kind)
    output = scorer.module(network)(image).transpose(0, 1)
    assert torch.equal(scorer.logits(output), logits.transpose(0, 1))
    torch.testing.assert_close(scorer.estimate(output), estimated.transpose(0, 1))
    torch.testing.assert_close(scorer.audit(output, labels), scores.transpose(0, 1))

    tensors = calibrate(network, known, [case], spatial_dims=2, patch_size=(8, 8), device="cpu", features=kind)
    region = np.zeros(case.label.shape, dtype=bool)
    region[1:3, 3:10, 3:12] = True
    expected, _ = np.histogram(estimated[:, 1].numpy()[region], bins=512, range=(0, 1))
    np.testing.assert_array_equal(tensors["calibration.prototype_ratio_voxel"].numpy(), expected)


def test_training_settings_say_which_features() -> None:
    assert feature_kind({}) == "centred"
    assert feature_kind({"score_mode": "bounded", "score_features": "logits"}) == "centred"
    assert feature_kind({"score_mode": "paper", "score_features": "logits"}) == "logits"
    assert feature_kind({"score_mode": "zscore", "score_features": "penultimate"}) == "penultimate"


def test_cases_without_foreground_and_models_without_prototypes_leave_histograms_out(case: Prepared) -> None:
    empty = Prepared(np.full_like(case.image, -5), np.zeros_like(case.label))
    assert calibrate(TwoLevels(), prototypes(), [empty], spatial_dims=2, patch_size=(8, 8), device="cpu") == {}
    tensors = calibrate(TwoLevels(), Prototypes(2, 2), [case], spatial_dims=2, patch_size=(8, 8), device="cpu")
    assert {name.split("_")[0] for name in tensors} == {"calibration.confidence"}


def test_a_raise_between_cases_stops_and_the_network_keeps_its_mode(case: Prepared) -> None:
    network, seen = TwoLevels().train(), []

    def on_case(done: int, of: int) -> None:
        seen.append((done, of))
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(network, prototypes(), [case] * 3, spatial_dims=2, patch_size=(8, 8), device="cpu", on_case=on_case)
    assert seen == [(0, 3), (1, 3)]
    assert network.training


def test_held_out_cases_lie_where_their_own_percentiles_say(case: Prepared) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(5):
        image = rng.normal(0, 2, case.image.shape).astype(np.float32)
        cases.append(Prepared(image, (image[0] + rng.normal(0, 1, case.label.shape) > 0).astype(np.uint8)))
    tensors = calibrate(TwoLevels(), prototypes(), cases, spatial_dims=2, patch_size=(8, 8), device="cpu")
    calibrated = Calibration.from_tensors(tensors)
    confidence = np.concatenate([1 / (1 + np.exp(np.abs(each.image[0]))) for each in cases]).astype(np.float32)
    # Nearly everything is within two voxels of foreground, so percentiles are uniform over all voxels.
    mapped = calibrated.apply_("confidence", confidence)
    for percentile in (10, 50, 90):
        assert (mapped < percentile).mean() == pytest.approx(percentile / 100, abs=0.02)
