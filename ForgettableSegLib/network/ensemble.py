"""Several trainings of one network, averaged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ForgettableSegLib.network.outputs import Outputs


class Ensemble(nn.Module):
    """Networks of the same arguments that were trained apart; its logits are the mean of theirs.

    Args:
        members: the networks; together they have the face of one.
    """

    mirror_axes = ()  # its members have their own
    feature_size = 0  # penultimate features of different trainings do not belong together
    distributions = None  # nor do their distributions of classes
    memory = None  # each member reads its own

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.context_slices = getattr(members[0], "context_slices", 0)

    def set_text(self, vectors: Tensor) -> None:
        """Put the text embeddings [C-1, L] in place."""
        for member in self.members:
            member.set_text(vectors)

    def forward_with_features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C, *S], and no features [B, 0, *S]."""
        logits = self(image)
        return logits, logits[:, :0]

    def forward_supervised(self, image: Tensor) -> Outputs:
        """As `forward_with_features`, and the mean logits of the members' supervised lower levels."""
        outputs = [member.forward_supervised(image) for member in self.members]
        logits = torch.stack([each.logits for each in outputs]).mean(0)
        levels = zip(*(each.lower for each in outputs), strict=True)
        return Outputs(logits, logits[:, :0], [torch.stack(level).mean(0) for level in levels])

    def forward(self, image: Tensor) -> Tensor:
        """Image [B, in_channels, *S] to logits z [B, C, *S]."""
        return torch.stack([member(image) for member in self.members]).mean(0)
