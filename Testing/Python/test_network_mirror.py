"""Mirror images: the same meaning in training and in inference, in 2D and 3D, with and without neighbouring slices."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import TASK, write_cases
from torch import Tensor, nn
from training_cases import train

from ForgettableSegLib.errors import ForgettableSegError
from ForgettableSegLib.inference.predictor import Predictor
from ForgettableSegLib.network.build import build_network
from ForgettableSegLib.network.context import with_neighbours
from ForgettableSegLib.network.forward import predict_prepared
from ForgettableSegLib.network.mirror import mirror
from ForgettableSegLib.training.augmentation import Augmentation
from ForgettableSegLib.training.export import model_package

AXES = list(product((False, True), repeat=3))


class Lopsided(nn.Module):
    """Neither its weights nor its output are symmetric; counts how often it runs."""

    def __init__(self, *, dims: int, channels: int, context_slices: int, mirror_axes: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        self.layer = convolution(channels * (2 * context_slices + 1), 2, 3, padding=1)
        self.context_slices, self.mirror_axes = context_slices, mirror_axes
        self.passes = 0

    def forward(self, image: Tensor) -> Tensor:
        self.passes += 1
        return self.layer(image)


def _predict(network: nn.Module, image: np.ndarray, dims: int) -> np.ndarray:
    logits = predict_prepared(network, image, spatial_dims=dims, patch_size=image.shape[-dims:], device="cpu")
    return logits.numpy()


@pytest.mark.parametrize(("dims", "context_slices"), [(2, 0), (2, 2), (3, 0)])
@pytest.mark.parametrize("chosen", AXES)
def test_a_mirrored_case_gives_the_mirrored_result(dims: int, context_slices: int, chosen: tuple[bool, ...]) -> None:
    axes = tuple(axis for axis, flag in enumerate(chosen) if flag)
    image = np.random.default_rng(1).normal(size=(2, 5, 6, 7)).astype(np.float32)
    network = Lopsided(dims=dims, channels=2, context_slices=context_slices, mirror_axes=axes)
    logits = _predict(network, image, dims)
    seen = [axis for axis in axes if axis or dims == 3 or context_slices]
    assert network.passes == 2 ** len(seen)
    for axis in range(3):
        turned = np.flip(_predict(network, np.flip(image, axis + 1).copy(), dims), axis + 1)
        is_equivariant = axis in axes or (axis == 0 and dims == 2 and not context_slices)
        assert np.allclose(turned, logits, atol=1e-5) == is_equivariant


def test_the_mirrored_channels_are_those_of_the_mirrored_case() -> None:
    image = np.random.default_rng(2).normal(size=(2, 6, 3, 4)).astype(np.float32)
    slices = torch.from_numpy(with_neighbours(image, 0, 6, 2))
    turned = torch.from_numpy(with_neighbours(np.flip(image, (1, 3)).copy(), 0, 6, 2))
    assert torch.equal(mirror(slices, (0, 2), context_slices=2), turned.flip(0))


@pytest.mark.parametrize("dims", [2, 3])
def test_half_of_the_samples_are_mirrored_with_their_labels(dims: int) -> None:
    shape = (300, 1, 6, 7) if dims == 2 else (300, 1, 5, 6, 7)
    images = torch.randn(shape)
    labels = (images[:, 0] * 10).clamp(0, 200).to(torch.uint8)
    augmentation = Augmentation(intensity=False, spatial=False, mirror_axes=(2,))
    changed, changed_labels = augmentation(images, labels, 4)
    assert torch.equal(changed_labels, (changed[:, 0] * 10).clamp(0, 200).to(torch.uint8))
    mirrored = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(changed, images, strict=True)])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(changed, images, strict=True)])
    assert (mirrored ^ same).all()
    assert 0.35 < mirrored.float().mean() < 0.65


def test_without_axes_the_draws_of_the_other_changes_stay_as_they_are() -> None:
    images, labels = torch.randn(8, 1, 6, 6), torch.zeros(8, 6, 6, dtype=torch.uint8)
    plain, _ = Augmentation(intensity=True, spatial=True)(images, labels, 7)
    none, _ = Augmentation(intensity=True, spatial=True, mirror_axes=())(images, labels, 7)
    assert torch.equal(plain, none)


def test_a_model_keeps_its_axes_and_segments_a_mirrored_case_as_it_should(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "cases", 6, shape=(6, 20, 18))
    settings = {"iterations": 3, "mirror_axes": [0, 1, 2], "context_slices": 1}
    outcome = train(cases, tmp_path / "run", settings=settings)
    package = model_package(outcome, device=torch.device("cpu"), calibration={})
    assert package.card["network"]["mirror_axes"] == [0, 1, 2]
    model = Predictor(package).model
    image = np.array(outcome.validation_cases[0].image)
    how = {"spatial_dims": 2, "patch_size": model.patch_size, "device": "cpu"}
    logits = predict_prepared(model.network, image, **how).numpy()
    turned = predict_prepared(model.network, np.flip(image, (1, 2)).copy(), **how).numpy()
    np.testing.assert_allclose(np.flip(turned, (1, 2)), logits, atol=1e-4)


def test_a_model_that_is_given_classes_of_one_side_mirrors_no_more(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "cases", 6, shape=(20, 20, 18))
    open_settings = {"iterations": 1, "mirror_axes": None, "spatial_dims": None, "patch_size": None}
    outcome = train(cases, tmp_path / "run", settings=open_settings)
    assert outcome.config.network["mirror_axes"] == [2]
    assert outcome.config.settings.spatial_dims == 3
    start = model_package(outcome, device=torch.device("cpu"), calibration={})
    left = tuple(dataclasses.replace(each, name=f"left {each.name}") for each in TASK.classes)
    sided = dataclasses.replace(TASK, classes=left)
    for task, axes in ((TASK, [2]), (sided, [])):
        tuned = train(cases, tmp_path / f"tuned{len(axes)}", settings=open_settings, start=start, task=task)
        assert tuned.config.network["mirror_axes"] == axes


@pytest.mark.parametrize("axes", [[3], [0, 0], [-1], "0"])
def test_other_axes_are_refused(axes: object) -> None:
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "features": [4, 8], "mirror_axes": axes}
    with pytest.raises(ForgettableSegError, match="mirror_axes"):
        build_network(arguments)
