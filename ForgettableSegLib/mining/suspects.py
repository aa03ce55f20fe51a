"""Labels that are probably wrong: where a network is more surprised by a label than by its own doubt it should be.

A network in doubt expects to be surprised: under its own probabilities a voxel's surprise -log p_y has the mean H (its
entropy) and a variance that both follow from p. What exceeds H is counted, so a blurred border or the last slice of a
structure, where every label is doubtful, is no suspect, while a label that contradicts a sure network is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

# Smallest probability that counts: a network that is surer than this is so by training, not by evidence.
FLOOR = 1e-4
# Variance of a handful of voxels, so that a single one does not make a slice suspicious.
PRIOR_VARIANCE = 10.0


class Surprise(NamedTuple):
    """Excess of surprise and its variance, float32 ``[S, H, W]`` each, and the network's own classes, uint8."""

    excess: Tensor
    variance: Tensor
    predicted: Tensor


@torch.no_grad()
def surprise(logits: Tensor, labels: Tensor) -> Surprise:
    """Compare labels with what a network expects.

    Args:
        logits: z, ``[C, S, H, W]``.
        labels: class indices ``[S, H, W]``, 255 where there is none: no surprise there.

    Returns:
        -log p_y - H(p), the variance of -log p under p, and argmax p.
    """
    log_p = logits.float().log_softmax(0).clamp_min(float(np.log(FLOOR)))
    p = log_p.exp()
    entropy = -(p * log_p).sum(0)
    valid = labels < len(logits)
    own = log_p.gather(0, labels.long().masked_fill(~valid, 0).unsqueeze(0))[0]
    variance = ((p * log_p.square()).sum(0) - entropy.square()).clamp_min(0)
    return Surprise((-own - entropy) * valid, variance * valid, logits.max(0).indices.to(torch.uint8))


def suspicion(excess: NDArray[np.floating], variance: NDArray[np.floating], *, axis: int | None = None) -> NDArray:
    """Sum of the excess in units of its standard deviation: of a whole array, or of each of its planes.

    Args:
        excess, variance: see `surprise`, as arrays ``[S, H, W]``, or of any shape without `axis`.
        axis: along which there is a value a plane; None gives one value for all.
    """
    others = None if axis is None else tuple(other for other in range(excess.ndim) if other != axis)
    total = excess.sum(axis=others, dtype=np.float64)
    return total / np.sqrt(variance.sum(axis=others, dtype=np.float64) + PRIOR_VARIANCE)


@dataclass(frozen=True)
class SuspectRegion:
    """A connected region of one class that the network would call otherwise.

    Args:
        label, wanted: class indices: of the labels, and of the network.
        score: see `suspicion`.
        voxels: its size.
        centre: index (S, H, W) of the voxel of the region that is nearest to its middle.
        box: first and last index of it along S, H and W.
    """

    label: int
    wanted: int
    score: float
    voxels: int
    centre: tuple[int, int, int]
    box: tuple[tuple[int, int], ...]


def suspect_regions(
    found: tuple[NDArray, NDArray, NDArray], labels: NDArray[np.uint8], *, num_classes: int, most: int = 50
) -> list[SuspectRegion]:
    """Connected regions (neighbours by a face, an edge or a corner) of a pair of label and wanted class.

    Args:
        found: excess, variance and predicted classes, see `surprise`, as arrays.
        labels: class indices ``[S, H, W]``, 255 where there is none.
        num_classes: C.
        most: how many to return.

    Returns:
        Those whose labels surprise the network more than it expects, the most suspicious first.
    """
    excess, variance, predicted = found
    differs = (predicted != labels) & (labels < num_classes)
    pairs = np.unique(labels[differs].astype(np.int64) * num_classes + predicted[differs])
    regions = []
    for label, wanted in (divmod(int(pair), num_classes) for pair in pairs):
        numbers, count = ndimage.label((labels == label) & (predicted == wanted), np.ones((3, 3, 3)))
        flat = numbers.reshape(-1)
        sums = [np.bincount(flat, weights=each.reshape(-1), minlength=count + 1) for each in (excess, variance)]
        scores = sums[0] / np.sqrt(sums[1] + PRIOR_VARIANCE)
        boxes = ndimage.find_objects(numbers)
        order = [number for number in np.argsort(-scores[1:], kind="stable")[:most] + 1 if scores[number] > 0]
        regions += [
            SuspectRegion(label, wanted, float(scores[number]), *_place(numbers, int(number), boxes[number - 1]))
            for number in order
        ]
    return sorted(regions, key=lambda region: -region.score)[:most]


def _place(
    numbers: NDArray[np.integer], number: int, box: tuple[slice, ...]
) -> tuple[int, tuple[int, int, int], tuple[tuple[int, int], ...]]:
    """Size, a voxel near the middle, and first and last indices of a region."""
    voxels = np.argwhere(numbers[box] == number)
    nearest = voxels[((voxels - voxels.mean(0)) ** 2).sum(1).argmin()]
    corner = [part.start for part in box]
    centre = tuple(int(first + step) for first, step in zip(corner, nearest, strict=True))
    return len(voxels), centre, tuple((part.start, part.stop - 1) for part in box)
