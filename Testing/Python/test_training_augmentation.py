"""Batched augmentation: what must change, what must not, and that a seed decides all."""

from __future__ import annotations

import pytest
import torch

from ForgettableSegLib.cases.labels import IGNORE_LABEL
from ForgettableSegLib.training.augmentation import Augmentation, blur, contrast, gamma


def _batch(dims: int, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    shape = (20, 14) if dims == 2 else (6, 10, 8)
    return torch.randn(size, 2, *shape), torch.randint(0, 3, (size, *shape), dtype=torch.uint8)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_seed_decides_and_shapes_stay(dims: int) -> None:
    images, labels = _batch(dims)
    augmentation = Augmentation(intensity=True, spatial=True)
    first, first_labels = augmentation(images, labels, seed=5)
    again, again_labels = augmentation(images, labels, seed=5)
    other, _ = augmentation(images, labels, seed=6)
    assert first.shape == images.shape
    assert first_labels.dtype == torch.uint8
    assert torch.equal(first, again)
    assert torch.equal(first_labels, again_labels)
    assert not torch.equal(first, other)


def test_intensity_changes_leave_labels_alone_and_touch_some_samples_only() -> None:
    images, labels = _batch(2, size=200)
    changed, same_labels = Augmentation(intensity=True, spatial=False)(images, labels, seed=1)
    assert torch.equal(same_labels, labels)
    untouched = (changed == images).flatten(1).all(1).float().mean()
    # None of four independent changes: 0.9 * 0.8 * 0.85 * 0.7 = 0.43.
    assert 0.3 < untouched < 0.56


@pytest.mark.parametrize("dims", [2, 3])
def test_rotation_and_scaling_move_image_and_label_together(dims: int) -> None:
    _, labels = _batch(dims)
    labels = torch.zeros_like(labels)
    labels[..., labels.shape[-1] // 2 :] = 2
    images = labels[:, None].float()
    moved, moved_labels = Augmentation(intensity=False, spatial=True)(images, labels, seed=3)
    assert not torch.equal(moved_labels, labels)
    valid = moved_labels != IGNORE_LABEL
    assert set(moved_labels.unique().tolist()) <= {0, 2, IGNORE_LABEL}
    # The interpolated image rounds to the nearest label except within a voxel of the edge.
    agree = ((moved[:, 0] > 1) == (moved_labels == 2))[valid].float().mean()
    assert agree > 0.93


def test_a_rotation_keeps_lengths_in_an_oblong_patch() -> None:
    labels = torch.zeros(300, 40, 80, dtype=torch.uint8)
    labels[:, 8:32, 28:52] = 1
    _, moved = Augmentation(intensity=False, spatial=True)(labels[:, None].float(), labels, seed=2)
    areas = (moved == 1).flatten(1).sum(1) / 24**2
    # Only the scale changes areas: by its square, between 1/1.18^2 and 1/0.85^2 (with voxels to round).
    assert areas.min() > 1 / 1.18**2 - 0.15
    assert areas.max() < 1 / 0.85**2 + 0.15


def test_gamma_keeps_the_range_and_one_is_the_identity() -> None:
    images, _ = _batch(2, size=4)
    changed = gamma(images, torch.tensor([1.0, 0.7, 1.4, 1.0]).view(4, 1, 1, 1))
    assert torch.equal(changed[[0, 3]], images[[0, 3]])
    torch.testing.assert_close(changed.amax((2, 3)), images.amax((2, 3)))
    torch.testing.assert_close(changed.amin((2, 3)), images.amin((2, 3)))
    assert not torch.allclose(changed[1], images[1])


@pytest.mark.parametrize("dims", [2, 3])
def test_blur_keeps_constants_and_lowers_variance(dims: int) -> None:
    images, _ = _batch(dims, size=3)
    sigma = torch.tensor([0.0, 0.5, 1.0]).view(3, *[1] * (dims + 1))
    blurred = blur(images, sigma)
    assert torch.equal(blurred[0], images[0])
    assert blurred[2].var() < blurred[1].var() < images[1].var()
    torch.testing.assert_close(blur(torch.full_like(images, 3.0), sigma), torch.full_like(images, 3.0))


@pytest.mark.parametrize("dims", [2, 3])
def test_strong_changes_touch_some_samples_and_no_label(dims: int) -> None:
    images, labels = _batch(dims, size=200)
    augmentation = Augmentation(intensity=False, spatial=False, strong=True)
    changed, same_labels = augmentation(images, labels, seed=1)
    assert torch.equal(same_labels, labels)
    assert changed.shape == images.shape
    untouched = (changed == images).flatten(1).all(1).float().mean()
    # None of three independent changes: 0.85 * 0.75 * 0.9 = 0.57.
    assert 0.45 < untouched < 0.7


def test_contrast_keeps_the_mean_of_what_it_does_not_clip_and_never_leaves_the_range() -> None:
    images = torch.randn(4, 2, 9, 9)
    factor = torch.tensor([1.0, 0.5, 0.75, 1.25]).view(4, 1, 1, 1)
    changed = contrast(images, factor)
    assert torch.equal(changed[0], images[0])
    torch.testing.assert_close(changed[1:3].mean((2, 3)), images[1:3].mean((2, 3)))
    torch.testing.assert_close(changed[1].std((1, 2)), images[1].std((1, 2)) / 2)
    assert (changed.amax((2, 3)) <= images.amax((2, 3))).all()
    assert (changed.amin((2, 3)) >= images.amin((2, 3))).all()
