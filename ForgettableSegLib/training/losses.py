"""Losses over the valid voxels of a batch.

They can be summed over micro-batches and ranks: cross-entropy, focal and Kervadec's boundary loss are means over
samples of means over voxels, and the others sum their counts over the ranks before they divide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor

from ForgettableSegLib.cases.labels import IGNORE_LABEL
from ForgettableSegLib.training.boundary import boundary_dou_loss, boundary_loss, boundary_weight

TVERSKY_ALPHA, TVERSKY_BETA = 0.3, 0.7
FOCAL_GAMMA = 2.0
HARDEST_SHARE = 0.1

AllReduce = Callable[[Tensor], Tensor]


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


def class_mean_cross_entropy(logits: Tensor, labels: Tensor, all_reduce: AllReduce | None = None) -> Tensor:
    """Cross-entropy as a mean over the classes of a batch of the mean over their voxels, the background included.

    A mean over voxels hardly sees small structures, and soft Dice none that the network gives no probability yet.

    Args:
        logits: (B, C, *S).
        labels: (B, *S) class indices, 255 where there is no label.
        all_reduce: sums a tensor over the ranks, differentiably.

    Returns:
        Scalar in nats.
    """
    valid = labels.flatten() != IGNORE_LABEL
    true = labels.flatten().long() * valid
    voxels = functional.cross_entropy(logits, labels.long(), ignore_index=IGNORE_LABEL, reduction="none").flatten()
    sums = torch.zeros(logits.shape[1], device=logits.device).index_add(0, true, voxels)
    counts = torch.zeros_like(sums).index_add(0, true, valid.float())
    if all_reduce is not None:
        sums, counts = all_reduce(torch.stack([sums, counts]))
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss (1 - p_y)^gamma (-log p_y) of each sample with gamma 2, as a mean over its valid voxels.

    Args and returns are those of `cross_entropy`.
    """
    entropy = functional.cross_entropy(logits, labels.long(), ignore_index=IGNORE_LABEL, reduction="none").flatten(1)
    voxels = (1 - torch.exp(-entropy)) ** FOCAL_GAMMA * entropy
    return voxels.sum(1) / (labels != IGNORE_LABEL).flatten(1).sum(1).clamp(min=1)


def _probabilities_and_one_hot(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Both (B, C, *S) in float32, and 0 where there is no label."""
    valid = labels != IGNORE_LABEL
    probabilities = torch.softmax(logits.float(), dim=1) * valid[:, None]
    one_hot = functional.one_hot(labels.long() * valid, logits.shape[1]).movedim(-1, 1) * valid[:, None]
    return probabilities, one_hot


def _class_sums(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the valid voxels of a batch for each foreground class, each (C - 1,), float32.

    Of its probability where it is the true class, of its probability everywhere, and of its voxels. No one-hot labels
    are made, which with many classes cost more than the network.
    """
    valid = (labels != IGNORE_LABEL).flatten()
    true = labels.flatten().long() * valid
    probabilities = torch.softmax(logits.float(), dim=1) * (labels != IGNORE_LABEL)[:, None]
    of_true = probabilities.gather(1, true.view(labels.shape)[:, None]).flatten()
    overlap = torch.zeros(logits.shape[1], device=logits.device).index_add(0, true, of_true)
    predicted = probabilities.sum([0, *range(2, logits.ndim)])
    wanted = torch.zeros_like(overlap).index_add(0, true, valid.float())
    return overlap[1:], predicted[1:], wanted[1:]


def soft_dice_loss(logits: Tensor, labels: Tensor, all_reduce: AllReduce | None = None) -> Tensor:
    """One minus the soft Dice of each foreground class over the whole batch, averaged over the classes.

    Pooling the batch keeps slices in which a class is absent from dominating (as nnU-Net does in 2D).

    Args:
        logits: (B, C, *S).
        labels: (B, *S) class indices, 255 where there is no label.
        all_reduce: sums a tensor over the ranks, differentiably.

    Returns:
        Scalar in [0, 1].
    """
    overlap, predicted, wanted = _class_sums(logits, labels)
    total = predicted + wanted
    if all_reduce is not None:
        overlap, total = all_reduce(torch.stack([overlap, total]))
    smooth = 1e-5
    return 1 - ((2 * overlap + smooth) / (total + smooth)).mean()


def gradient_aware_dice_loss(logits: Tensor, labels: Tensor, all_reduce: AllReduce | None = None) -> Tensor:
    """GADice (METHOD B.2): soft Dice of the classes that the batch shows, and for the others a loss that sees them.

    Soft Dice of an absent class is 1 whatever its probabilities are, without a gradient to speak of. Here it costs
    sum_i beta_i p_i with beta = p / n detached, n its negative voxels: each is pushed down as far as it stands up.

    Args and returns are those of `soft_dice_loss`.
    """
    overlap, predicted, wanted = _class_sums(logits, labels)
    valid = (labels != IGNORE_LABEL)[:, None]
    probabilities = torch.softmax(logits.float(), dim=1)[:, 1:] * valid
    false = (probabilities.detach() * probabilities).sum([0, *range(2, logits.ndim)])
    negative = valid.sum().to(false.dtype).expand_as(false)
    if all_reduce is not None:
        overlap, predicted, wanted, false, negative = all_reduce(
            torch.stack([overlap, predicted, wanted, false, negative])
        )
    smooth = 1e-5
    dice = 1 - (2 * overlap + smooth) / (predicted + wanted + smooth)
    return torch.where(wanted > 0, dice, false / negative.clamp(min=1)).mean()


def gradient_aware_cross_entropy(logits: Tensor, labels: Tensor, all_reduce: AllReduce | None = None) -> Tensor:
    """GACE (METHOD B.2): mean over samples of their hardest tenth of cross-entropies, rare classes weighing more.

    A voxel of class c weighs n_c^(-1/2), n_c the voxels of c in the batch, scaled so that the mean of all weights is 1.

    Args and returns are those of `class_mean_cross_entropy`.
    """
    valid = labels != IGNORE_LABEL
    true = labels.flatten().long() * valid.flatten()
    counts = torch.zeros(logits.shape[1], device=logits.device).index_add(0, true, valid.flatten().float())
    if all_reduce is not None:
        counts = all_reduce(counts)
    weights = counts.clamp(min=1).rsqrt() * counts.sum() / counts.sqrt().sum().clamp(min=1)
    voxels = functional.cross_entropy(logits, labels.long(), ignore_index=IGNORE_LABEL, reduction="none")
    weighted = (voxels * weights[true].view_as(voxels)).flatten(1)
    wanted = (valid.flatten(1).sum(1) * HARDEST_SHARE).ceil().clamp(min=1)
    hardest = weighted.topk(int(wanted.max()), dim=1).values
    taken = torch.arange(hardest.shape[1], device=hardest.device) < wanted.unsqueeze(1)
    return ((hardest * taken).sum(1) / wanted).mean()


def tversky_loss(logits: Tensor, labels: Tensor, all_reduce: AllReduce | None = None) -> Tensor:
    """One minus TP / (TP + 0.3 FP + 0.7 FN) of each foreground class over the whole batch, averaged over the classes.

    Args and returns are those of `soft_dice_loss`.
    """
    overlap, predicted, wanted = _class_sums(logits, labels)
    if all_reduce is not None:
        overlap, predicted, wanted = all_reduce(torch.stack([overlap, predicted, wanted]))
    errors = TVERSKY_ALPHA * (predicted - overlap) + TVERSKY_BETA * (wanted - overlap)
    smooth = 1e-5
    return 1 - ((overlap + smooth) / (overlap + errors + smooth)).mean()


def segmentation_loss(
    logits: Tensor, labels: Tensor, *, kind: str, all_reduce: AllReduce | None = None, done: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The loss to minimise, and the cross-entropy of each sample.

    Args:
        logits: (B, C, *S).
        labels: (B, *S).
        kind: "ce", "dice_ce", "balanced", "ga_dice_ce", "tversky", "focal", "boundary" or "boundary_dou".
        all_reduce: sums a tensor over the ranks, differentiably.
        done: share of the training that is over, which "boundary" is weighted by.

    Returns:
        (scalar loss, (B,) detached cross-entropies that selection by loss uses).
    """
    per_sample = cross_entropy(logits, labels)
    if kind == "focal":
        loss = focal_loss(logits, labels).mean()
    elif kind == "tversky":
        loss = tversky_loss(logits, labels, all_reduce)
    elif kind == "ga_dice_ce":
        loss = gradient_aware_dice_loss(logits, labels, all_reduce)
        loss = loss + gradient_aware_cross_entropy(logits, labels, all_reduce)
    elif kind == "boundary_dou":
        probabilities, one_hot = _probabilities_and_one_hot(logits, labels)
        loss = boundary_dou_loss(probabilities, one_hot.float(), all_reduce)
    else:
        loss = per_sample.mean()
        if kind == "balanced":
            loss = (loss + class_mean_cross_entropy(logits, labels, all_reduce)) / 2
        if kind != "ce":
            loss = loss + soft_dice_loss(logits, labels, all_reduce)
        if kind == "boundary":
            alpha = boundary_weight(done)
            surface = boundary_loss(*_probabilities_and_one_hot(logits, labels)).mean()
            loss = (1 - alpha) * loss + alpha * surface
    return loss, per_sample.detach()


def supervised_loss(
    logits: Tensor,
    lower: Sequence[Tensor],
    labels: Tensor,
    *,
    kind: str,
    all_reduce: AllReduce | None = None,
    done: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`segmentation_loss` over the levels of a decoder (deep supervision), each half as heavy as the one above it.

    Args:
        logits: (B, C, *S).
        lower: (B, C, *ceil(S / 2^i)) of the levels i = 1, 2, ...; none leaves the plain loss.
        labels: (B, *S); a lower level is compared with every 2^i-th voxel of them.
        kind, all_reduce, done: see `segmentation_loss`.

    Returns:
        (scalar loss with weights that add up to 1, (B,) detached cross-entropies at full resolution).
    """
    loss, per_sample = segmentation_loss(logits, labels, kind=kind, all_reduce=all_reduce, done=done)
    weights = [0.5**level for level in range(len(lower) + 1)]
    loss = loss * weights[0]
    for level, (weight, output) in enumerate(zip(weights[1:], lower, strict=True), start=1):
        thinned = labels[(slice(None), *[slice(None, None, 2**level)] * (labels.ndim - 1))]
        part, _ = segmentation_loss(output.float(), thinned, kind=kind, all_reduce=all_reduce, done=done)
        loss = loss + weight * part
    return loss / sum(weights), per_sample
