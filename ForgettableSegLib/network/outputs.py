"""What a network hands to its training."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """All outputs of a network for a batch.

    Args:
        logits: z, [B, C, *S].
        features: penultimate features, [B, D, *S]; D is 0 where there are none to be had.
        lower: logits of the supervised lower levels; those of level i are [B, C, *ceil(S / 2^i)].
        bottleneck: the encoder's output f_visual, [B, d, *S / 2^levels]; None where there is none to be had.
    """

    logits: Tensor
    features: Tensor
    lower: list[Tensor]
    bottleneck: Tensor | None = None
