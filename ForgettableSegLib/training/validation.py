"""Dice of a network on prepared cases, for choosing the best model while training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ForgettableSegLib.cases.cache import PreparedCase
from ForgettableSegLib.network.forward import iterate_logits
from ForgettableSegLib.training.distributed import ProcessGroup


def validation_dice(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    *,
    num_classes: int,
    spatial_dims: int,
    patch_size: Sequence[int],
    device: torch.device,
    group: ProcessGroup,
    on_case: Callable[[int, int], None],
) -> list[float]:
    """Mean Dice of each foreground class over whole cases, on the prepared grid.

    Args:
        network: maps images to logits.
        cases: each is one volume; the ranks share them out.
        num_classes: C, background included.
        spatial_dims, patch_size, device: see `iterate_logits`.
        group: the processes of the run.
        on_case: called with cases done and number of cases; may raise to stop.

    Returns:
        C - 1 numbers in [0, 1], NaN for a class that no case has and none was given.
    """
    sums = torch.zeros(num_classes - 1, dtype=torch.float64)
    counts = torch.zeros_like(sums)
    own = cases[group.rank :: group.world_size]
    for number, case in enumerate(own):
        on_case(number, len(own))
        overlap, total = torch.zeros_like(sums), torch.zeros_like(sums)
        slabs = iterate_logits(
            network,
            case.image,
            spatial_dims=spatial_dims,
            patch_size=patch_size,
            device=device,
            mirrored=False,  # which would take several times as long
        )
        for where, logits in slabs:
            predicted = logits.max(0).indices.cpu()  # several times faster than argmax on the CPU
            reference = torch.from_numpy(case.label[where].astype("int64"))
            for label in range(1, num_classes):
                mask, truth = predicted == label, reference == label
                overlap[label - 1] += (mask & truth).sum()
                total[label - 1] += mask.sum() + truth.sum()
        present = total > 0
        sums[present] += 2 * overlap[present] / total[present]
        counts += present
        case.release()
    if own:
        on_case(len(own), len(own))
    group.sum(sums)
    group.sum(counts)
    return (sums / counts).tolist()
