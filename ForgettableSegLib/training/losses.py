"""Losses over the valid voxels of a batch.

Both parts can be summed over micro-batches and ranks without changing their value: cross-entropy is a mean over samples
of means over voxels, and the Dice part sums its counts over the ranks before it divides.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor

IGNORE_LABEL = 255


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample, as a mean over its valid voxels.

    Args:
        logits: (B, C, *S).
        labels: (B, *S) class indices, 255 where there is no label.

    Returns:
        (B,) losses in nats; 0 for a sample without valid voxels.
    """
    voxels = functional.cross_entropy(logits, labels.long(), ignore_index=IGNORE_LABEL, reduction="none").flatten(1)
    return voxels.sum(1) / (labels != IGNORE_LABEL).flatten(1).sum(1).clamp(min=1)


def soft_dice_loss(logits: Tensor, labels: Tensor, all_reduce: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """One minus the soft Dice of each foreground class over the whole batch, averaged over the classes.

    Pooling the batch keeps slices in which a class is absent from dominating (as nnU-Net does in 2D).

    Args:
        logits: (B, C, *S).
        labels: (B, *S) class indices, 255 where there is no label.
        all_reduce: sums a tensor over the ranks, differentiably.

    Returns:
        Scalar in [0, 1].
    """
    num_classes = logits.shape[1]
    valid = labels != IGNORE_LABEL
    probabilities = torch.softmax(logits.float(), dim=1) * valid[:, None]
    one_hot = functional.one_hot(labels.long() * valid, num_classes).movedim(-1, 1) * valid[:, None]
    voxels = [0, *range(2, logits.ndim)]
    overlap = (probabilities * one_hot).sum(voxels)[1:]
    total = probabilities.sum(voxels)[1:] + one_hot.sum(voxels)[1:]
    if all_reduce is not None:
        overlap, total = all_reduce(torch.stack([overlap, total]))
    smooth = 1e-5
    return 1 - ((2 * overlap + smooth) / (total + smooth)).mean()


def segmentation_loss(
    logits: Tensor, labels: Tensor, *, kind: str, all_reduce: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The loss to minimise, and the cross-entropy of each sample.

    Args:
        logits: (B, C, *S).
        labels: (B, *S).
        kind: "ce" or "dice_ce".
        all_reduce: sums a tensor over the ranks, differentiably.

    Returns:
        (scalar loss, (B,) detached cross-entropies that selection by loss uses).
    """
    per_sample = cross_entropy(logits, labels)
    loss = per_sample.mean()
    if kind == "dice_ce":
        loss = loss + soft_dice_loss(logits, labels, all_reduce)
    return loss, per_sample.detach()
