"""The losses that the experiments compare with, against closed forms, MONAI and their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import FocalLoss, TverskyLoss
from scipy.ndimage import distance_transform_edt

from ForgettableSegLib.training.boundary import boundary_dou_loss, boundary_loss, boundary_weight, signed_distances
from ForgettableSegLib.training.losses import (
    IGNORE_LABEL,
    class_mean_cross_entropy,
    cross_entropy,
    focal_loss,
    segmentation_loss,
    soft_dice_loss,
    tversky_loss,
)

KINDS = ("balanced", "tversky", "focal", "boundary", "boundary_dou")


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """(B, C, *S), float."""
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


def test_a_class_of_one_voxel_counts_as_much_as_a_large_one() -> None:
    """Of the three classes one is absent, and one has a single voxel; a voxel without a label counts for nothing."""
    labels = torch.zeros(1, 4, 5, dtype=torch.int64)
    labels[0, 1, 2], labels[0, 0, 0] = 2, IGNORE_LABEL
    logits = torch.randn(1, 3, 4, 5)
    losses = -logits.log_softmax(1)
    background = [losses[0, 0, r, c] for r in range(4) for c in range(5) if labels[0, r, c] == 0]
    expected = (torch.stack(background).mean() + losses[0, 2, 1, 2]) / 2
    torch.testing.assert_close(class_mean_cross_entropy(logits, labels), expected)


def test_over_ranks_classes_weigh_as_in_the_whole_batch() -> None:
    """A class that only one rank has counts once."""
    logits, labels = torch.randn(4, 3, 5, 5), torch.randint(0, 2, (4, 5, 5))
    labels[3, 0, 0] = 2
    sums: list[torch.Tensor] = []

    def remember(values: torch.Tensor) -> torch.Tensor:
        sums.append(values)
        return values

    for first in (0, 2):
        class_mean_cross_entropy(logits[first : first + 2], labels[first : first + 2], remember)
    both = class_mean_cross_entropy(logits[:2], labels[:2], lambda own: sums[0] + sums[1])
    torch.testing.assert_close(both, class_mean_cross_entropy(logits, labels))


def test_tversky_by_hand() -> None:
    # Two of four voxels are of class 1, p = 1/2 everywhere: TP 1, FP 1, FN 1.
    labels = torch.tensor([[[0, 0], [1, 1]]])
    assert tversky_loss(torch.zeros(1, 2, 2, 2), labels) == pytest.approx(1 - 1 / (1 + 0.3 + 0.7), abs=1e-4)


@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6)])
def test_tversky_and_focal_are_those_of_monai(shape: tuple[int, ...]) -> None:
    logits, labels = torch.randn(3, 4, *shape), torch.randint(0, 4, (3, *shape))
    tversky = TverskyLoss(include_background=False, to_onehot_y=True, softmax=True, alpha=0.3, beta=0.7, batch=True)
    torch.testing.assert_close(tversky_loss(logits, labels), tversky(logits, labels[:, None]), atol=1e-4, rtol=0)
    focal = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0, reduction="none")
    expected = focal(logits, labels[:, None]).sum(1).flatten(1).mean(1)
    torch.testing.assert_close(focal_loss(logits, labels), expected)


def test_focal_loss_of_a_uniform_network() -> None:
    labels = torch.randint(0, 4, (2, 5, 5))
    expected = torch.full((2,), 0.75**2 * math.log(4))
    torch.testing.assert_close(focal_loss(torch.zeros(2, 4, 5, 5), labels), expected)


@pytest.mark.parametrize("shape", [(9, 11), (5, 6, 7)])
def test_distances_are_those_of_each_mask_by_itself(shape: tuple[int, ...]) -> None:
    masks = torch.rand(6, *shape) > 0.8
    masks[1], masks[4] = False, True
    found = signed_distances(masks)
    assert found[[1, 4]].abs().max() == 0  # neither an empty nor a full mask has a boundary
    for index in (0, 2, 3, 5):
        mask = masks[index].numpy()
        outside, inside = distance_transform_edt(~mask), distance_transform_edt(mask)
        expected = torch.from_numpy(outside - (inside - 1) * mask).float()
        torch.testing.assert_close(found[index], expected)


def test_distances_of_empty_masks_alone() -> None:
    assert signed_distances(torch.zeros(2, 4, 4, dtype=torch.bool)).abs().max() == 0


def test_boundary_loss_by_hand() -> None:
    # A line of five voxels, the third of class 1: its distances are 2, 1, 0, 1, 2.
    target = one_hot(torch.tensor([[[0, 0, 1, 0, 0]]]), 2)
    flat = torch.full_like(target, 0.5)
    assert boundary_loss(flat, target).tolist() == pytest.approx([0.5 * 6 / 5])
    assert boundary_loss(target, target).tolist() == [0]


def test_boundary_loss_rewards_the_inside_and_punishes_what_is_far() -> None:
    labels = torch.zeros(1, 15, 15, dtype=torch.long)
    labels[:, 4:11, 4:11] = 1
    target = one_hot(labels, 2)
    shifted = [boundary_loss(target.roll(by, dims=2), target).item() for by in (0, 2, 4)]
    assert shifted[0] < 0
    assert shifted == sorted(shifted)


def test_boundary_loss_takes_over_from_the_regional_loss() -> None:
    assert [boundary_weight(done) for done in (0, 0.5, 1, 2)] == pytest.approx([0.01, 0.5, 0.99, 0.99])
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    regional = cross_entropy(logits, labels).mean() + soft_dice_loss(logits, labels)
    surface = boundary_loss(torch.softmax(logits, 1), one_hot(labels, 3)).mean()
    for done in (0.0, 0.25, 1.0):
        loss, _ = segmentation_loss(logits, labels, kind="boundary", done=done)
        alpha = boundary_weight(done)
        torch.testing.assert_close(loss, (1 - alpha) * regional + alpha * surface)


def test_boundary_dou_of_a_perfect_answer_is_nothing_and_of_a_wrong_one_everything() -> None:
    labels = torch.randint(0, 3, (2, 8, 8))
    target = one_hot(labels, 3)
    assert boundary_dou_loss(target, target) == pytest.approx(0, abs=1e-5)
    assert boundary_dou_loss(one_hot((labels + 1) % 3, 3), target) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_boundary_dou_by_hand(dims: int) -> None:
    # A cube of edge 5 within 9 voxels: its core of edge 3 is not on the boundary.
    labels = torch.zeros(1, *[9] * dims, dtype=torch.long)
    labels[(slice(None), *[slice(2, 7)] * dims)] = 1
    target = one_hot(labels, 2)
    area = torch.tensor([9.0**dims - 5**dims, 5.0**dims])
    faces = 2 * dims * 5 ** (dims - 1)
    # Of the background: what touches the cube's faces or the border of the patch (7 of 9 voxels an axis do not).
    shell = torch.tensor([9.0**dims - 7**dims + faces, 5.0**dims - 3**dims])
    # Voxels of the border of the patch do not touch the cube, for two voxels lie between them.
    alpha = (2 * (1 - shell / area) - 1).clamp(max=0.8)
    p = 0.5
    squares, overlap = 9**dims * p**2 + area, p * area
    expected = ((squares - 2 * overlap) / (squares - (1 + alpha) * overlap)).mean()
    assert boundary_dou_loss(torch.full_like(target, p), target) == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_voxels_without_label_change_neither_loss_nor_gradient(kind: str) -> None:
    logits = torch.randn(2, 3, 6, 6, requires_grad=True)
    labels = torch.randint(0, 3, (2, 6, 6))
    labels[:, :2] = IGNORE_LABEL
    loss, _ = segmentation_loss(logits, labels, kind=kind)
    loss.backward()
    assert logits.grad[:, :, :2].abs().max() == 0
    with torch.no_grad():
        inner, per_sample = segmentation_loss(logits[:, :, 2:], labels[:, 2:], kind=kind)
    # Sums of float32 over patches of two sizes.
    torch.testing.assert_close(loss.detach(), inner, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(per_sample, cross_entropy(logits[:, :, 2:], labels[:, 2:]).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_any_label_has_a_finite_loss_and_gradient(kind: str) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss, _ = segmentation_loss(logits, torch.full((2, 4, 4), IGNORE_LABEL), kind=kind)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("kind", ["tversky", "boundary_dou"])
def test_over_ranks_it_is_the_loss_of_the_whole_batch(kind: str) -> None:
    logits, labels = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))
    counts: list[torch.Tensor] = []

    def remember(values: torch.Tensor) -> torch.Tensor:
        counts.append(values)
        return values

    for first in (0, 2):
        segmentation_loss(logits[first : first + 2], labels[first : first + 2], kind=kind, all_reduce=remember)
    both, _ = segmentation_loss(logits[:2], labels[:2], kind=kind, all_reduce=lambda own: counts[0] + counts[1])
    torch.testing.assert_close(both, segmentation_loss(logits, labels, kind=kind)[0])


@pytest.mark.parametrize("kind", ["focal", "boundary"])
def test_samples_weigh_the_same_in_parts(kind: str) -> None:
    logits, labels = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))
    labels[0, :4] = IGNORE_LABEL
    if kind == "boundary":  # its regional part pools the batch
        values = boundary_loss(torch.softmax(logits, 1), one_hot(labels % IGNORE_LABEL, 3))
        single = [boundary_loss(torch.softmax(logits[i : i + 1], 1), one_hot(labels[i : i + 1], 3)) for i in (1, 2, 3)]
        torch.testing.assert_close(values[1:], torch.cat(single))
        return
    whole, _ = segmentation_loss(logits, labels, kind=kind)
    parts = [segmentation_loss(logits[i : i + 2], labels[i : i + 2], kind=kind)[0] for i in (0, 2)]
    torch.testing.assert_close(whole, sum(parts) / 2)
