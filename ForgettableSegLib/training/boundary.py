"""The two boundary losses that the experiments compare with: Kervadec's, and Boundary-Difference-over-Union.

Both take masked probabilities and one-hot labels, so voxels without a label take no part.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as functional
from scipy.ndimage import distance_transform_edt
from torch import Tensor

FIRST_ALPHA, LAST_ALPHA = 0.01, 0.99


def boundary_weight(done: float) -> float:
    """Share of the boundary loss after a share `done` of the training: it grows evenly while the regional loss fades.

    Kervadec et al. add 0.01 an epoch, starting from 0.01; here the growth is spread over the whole run.
    """
    return FIRST_ALPHA + (LAST_ALPHA - FIRST_ALPHA) * min(max(done, 0.0), 1.0)


def signed_distances(masks: Tensor) -> Tensor:
    """Distance of every voxel from the boundary of a mask: positive outside, (d - 1) negative inside.

    Args:
        masks: (N, *S), bool. They are one distance transform: along their own axis they lie so far apart that the
            nearest voxel of another kind is in the same mask, unless that has none.

    Returns:
        (N, *S), float32, voxels, on the device of the masks; 0 for a mask that is empty or full.
    """
    array = masks.cpu().numpy()
    axes = tuple(range(1, array.ndim))
    mixed = array.any(axes) & ~array.all(axes)
    if not mixed.any():
        return torch.zeros(masks.shape, device=masks.device)
    apart = [2.0 * sum(array.shape[1:]), *(1.0 for _ in axes)]
    outside = distance_transform_edt(~array, sampling=apart)
    inside = distance_transform_edt(array, sampling=apart)
    distances = np.where(array, 1 - inside, outside) * mixed.reshape(-1, *(1 for _ in axes))
    return torch.from_numpy(distances.astype(np.float32)).to(masks.device)


def boundary_loss(probabilities: Tensor, one_hot: Tensor) -> Tensor:
    """Mean over voxels and foreground classes of p_c phi_c (Kervadec et al. 2019).

    Args:
        probabilities: (B, C, *S), 0 where there is no label.
        one_hot: (B, C, *S), all 0 where there is no label.

    Returns:
        (B,) losses, mean over each sample's valid voxels, negative inside; 0 for a sample without any.
    """
    foreground = one_hot[:, 1:] > 0
    distances = signed_distances(foreground.flatten(0, 1)).view(foreground.shape)
    valid = one_hot.flatten(1).sum(1).clamp(min=1)
    return (probabilities[:, 1:] * distances).flatten(1).sum(1) / (valid * foreground.shape[1])


def boundary_dou_loss(
    probabilities: Tensor, one_hot: Tensor, all_reduce: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Boundary-Difference-over-Union (Sun et al. 2023) over the batch, mean over all classes.

    (|p|^2 + |y|^2 - 2 p y + s) / (|p|^2 + |y|^2 - (1 + a) p y + s) with a = min(2 (1 - C/S) - 1, 0.8), C the voxels of
    the class that have a face neighbour outside it, S all of its voxels, s = 1e-5.

    Args:
        probabilities, one_hot: as for `boundary_loss`.
        all_reduce: sums a tensor over the ranks, differentiably.

    Returns:
        Scalar.
    """
    voxels = [0, *range(2, one_hot.ndim)]
    overlap = (probabilities * one_hot).sum(voxels)
    squares = (probabilities**2).sum(voxels) + (one_hot**2).sum(voxels)
    with torch.no_grad():
        shell = (one_hot * (_neighbours(one_hot) < 2 * (one_hot.ndim - 2))).sum(voxels)
        area = one_hot.sum(voxels)
    if all_reduce is not None:
        overlap, squares, shell, area = all_reduce(torch.stack([overlap, squares, shell, area]))
    smooth = 1e-5
    alpha = (2 * (1 - (shell + smooth) / (area + smooth)) - 1).clamp(max=0.8).detach()
    return ((squares - 2 * overlap + smooth) / (squares - (1 + alpha) * overlap + smooth)).mean()


def _neighbours(one_hot: Tensor) -> Tensor:
    """How many face neighbours of each voxel are of the class; beyond the patch there are none."""
    classes, dims = one_hot.shape[1], one_hot.ndim - 2
    kernel = one_hot.new_zeros(3**dims)
    for axis in range(dims):
        middle = kernel.numel() // 2
        kernel[middle - 3**axis] = kernel[middle + 3**axis] = 1
    convolve = functional.conv2d if dims == 2 else functional.conv3d
    weight = kernel.view(1, 1, *(3 for _ in range(dims))).expand(classes, 1, *(3 for _ in range(dims)))
    return convolve(one_hot, weight.contiguous(), padding=1, groups=classes)
