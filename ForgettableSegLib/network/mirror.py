"""Mirror images: drawn at random in training, and averaged over when a network that was trained with them segments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import combinations

import torch
from torch import Tensor, nn

from ForgettableSegLib.network.ensemble import Ensemble


def mirror(values: Tensor, axes: Collection[int], *, context_slices: int = 0) -> Tensor:
    """Mirror patches of cases ``[S, H, W]`` along some of these axes.

    Args:
        values: (B, C, *S), patches in 2D (H, W) or 3D (S, H, W).
        axes: 0 to 2. In 2D axis 0 turns the order of the neighbouring slices round.
        context_slices: k of images whose channels are slices, see :func:`~.context.with_neighbours`; 0 for all others.

    Returns:
        (B, C, *S).
    """
    is_2d = values.ndim == 4
    if is_2d and 0 in axes and context_slices:
        values = values.unflatten(1, (-1, 2 * context_slices + 1)).flip(2).flatten(1, 2)
    dims = [axis - 3 for axis in axes if axis or not is_2d]
    return values.flip(dims) if dims else values


def mirrored_mean(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network, averaged over all mirror images along its ``mirror_axes``; itself where it has none.

    Of an ensemble each member along its own.

    Args:
        network: (B, Ch, *S) to (B, C, *S).
    """
    if isinstance(network, Ensemble):
        runs = [mirrored_mean(member) for member in network.members]
        return lambda image: torch.stack([run(image) for run in runs]).mean(0)
    axes, context_slices = getattr(network, "mirror_axes", ()), getattr(network, "context_slices", 0)

    def run(image: Tensor) -> Tensor:
        seen = [axis for axis in axes if axis or context_slices or image.ndim == 5]
        outputs = [mirror(network(mirror(image, some, context_slices=context_slices)), some) for some in _subsets(seen)]
        return torch.stack(outputs).mean(0) if len(outputs) > 1 else outputs[0]

    return run


def _subsets(axes: Collection[int]) -> Iterator[tuple[int, ...]]:
    for count in range(len(axes) + 1):
        yield from combinations(axes, count)
