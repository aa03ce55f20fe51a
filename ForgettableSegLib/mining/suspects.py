"""Labels that are probably wrong: where a network is more surprised by a label than by its own doubt it should be.

A network in doubt expects to be surprised: under its own probabilities a voxel's surprise -log p_y has the mean H, its
entropy. What exceeds H is counted, so a blurred border or the last slice of a structure, where every label is doubtful,
is no suspect, while a label that contradicts a sure network is one. Sums of the excess are divided by the square root
of the number of voxels at stake, for neighbours err together and large structures have long borders
(Testing/Benchmarks/EVIDENCE.md compares this with other ways).
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
# So many voxels more are always at stake, so that a single one does not make a slice suspicious.
PRIOR_VOXELS = 10


class Surprise(NamedTuple):
    """Excess of surprise, float32 ``[S, H, W]``, and the network's own classes, uint8."""

    excess: Tensor
    predicted: Tensor


@torch.no_grad()
def surprise(logits: Tensor, labels: Tensor) -> Surprise:
    """Compare labels with what a network expects.

    Args:
        logits: z, ``[C, S, H, W]``.
        labels: class indices ``[S, H, W]``, 255 where there is none: no surprise there.

    Returns:
        -log p_y - H(p), and argmax p.
    """
    log_p = logits.float().log_softmax(0).clamp_min(float(np.log(FLOOR)))
    entropy = -(log_p.exp() * log_p).sum(0)
    valid = labels < len(logits)
    own = log_p.gather(0, labels.long().masked_fill(~valid, 0).unsqueeze(0))[0]
    return Surprise((-own - entropy) * valid, logits.max(0).indices.to(torch.uint8))


def suspicion(excess: NDArray[np.floating] | float, voxels: NDArray[np.integer] | int) -> NDArray[np.floating] | float:
    """Suspicion of slices, regions or cases.

    Args:
        excess: sum of the excess of surprise over each.
        voxels: how many are at stake: those that labels or network call foreground; of a region, its own.
    """
    return excess / np.sqrt(voxels + PRIOR_VOXELS)


def at_stake(labels: NDArray[np.integer], predicted: NDArray[np.integer], num_classes: int) -> NDArray[np.bool_]:
    """Voxels that labels or network call foreground, where there is a label."""
    return ((labels > 0) | (predicted > 0)) & (labels < num_classes)


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
    excess: NDArray, predicted: NDArray, labels: NDArray[np.uint8], *, num_classes: int, most: int = 50
) -> list[SuspectRegion]:
    """Connected regions (neighbours by a face, an edge or a corner) of a pair of label and wanted class.

    Args:
        excess, predicted: see `surprise`, as arrays.
        labels: class indices ``[S, H, W]``, 255 where there is none.
        num_classes: C.
        most: how many to return.

    Returns:
        Those whose labels surprise the network more than it expects, the most suspicious first.
    """
    differs = (predicted != labels) & (labels < num_classes)
    pairs = np.unique(labels[differs].astype(np.int64) * num_classes + predicted[differs])
    regions = []
    for label, wanted in (divmod(int(pair), num_classes) for pair in pairs):
        numbers, count = ndimage.label((labels == label) & (predicted == wanted), np.ones((3, 3, 3)))
        flat = numbers.reshape(-1)
        sums = np.bincount(flat, weights=excess.reshape(-1), minlength=count + 1)
        scores = suspicion(sums, np.bincount(flat, minlength=count + 1))
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
