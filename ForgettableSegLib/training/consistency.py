"""Learning from cases without labels: two views of a patch must be told the same (mean teacher).

The average of the weights is the teacher. It sees the weak view, a patch that is at most rotated, scaled and mirrored;
the network sees the strong one, the same patch with its intensities changed as well, and is drawn to what the teacher
says of each voxel. With distributions of the classes (SCDL) its tokens are drawn, too, to the teacher's pseudo labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ForgettableSegLib.cases.case import Case, CaseList
from ForgettableSegLib.cases.labels import IGNORE_LABEL
from ForgettableSegLib.network.distributions import Tokens, pooled
from ForgettableSegLib.training.augmentation import Augmentation
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.distribution_loss import pseudo_labels, pull_loss
from ForgettableSegLib.training.patches import PatchReader, PatchSampler
from ForgettableSegLib.training.recorder import Recorder
from ForgettableSegLib.training.settings import TrainingSettings

# Keeps the draws of patches without labels apart from those of the others.
_OTHER_SEED = 7_919


@dataclass(frozen=True)
class Views:
    """Two views of the same patches.

    Args:
        weak, strong: (B, Ch, *patch), float32.
        valid: (B, *patch) bool, false outside of the case.
    """

    weak: Tensor
    strong: Tensor
    valid: Tensor

    def __len__(self) -> int:
        return len(self.valid)

    def part(self, first: int, last: int) -> Views:
        """Samples `first` to `last`."""
        return Views(self.weak[first:last], self.strong[first:last], self.valid[first:last])


class UnlabelledPatches:
    """Draws patches of cases without labels in two views; what an iteration draws depends on its number alone.

    Args:
        reader: of the cases without labels.
        settings: of the run; there are `unlabelled_ratio` times as many patches as labelled ones, at least one a rank.
        network: whose mirror axes and neighbouring slices the views have.
        group: the processes of the run.
        device: where the views are wanted.
    """

    def __init__(
        self,
        reader: PatchReader,
        settings: TrainingSettings,
        *,
        network: nn.Module,
        group: ProcessGroup,
        device: torch.device,
    ) -> None:
        self.reader = reader
        self.device = device
        size = max(1, round(settings.unlabelled_ratio * settings.batch_size / group.world_size)) * group.world_size
        self.sampler = PatchSampler(
            reader,
            batch_size=size,
            foreground_share=0.0,
            seed=settings.seed + _OTHER_SEED,
            rank=group.rank,
            world_size=group.world_size,
        )
        self.weak = Augmentation(
            intensity=False,
            spatial=settings.spatial_augmentation,
            mirror_axes=network.mirror_axes,
            context_slices=reader.context_slices,
        )
        self.strong = Augmentation(intensity=True, spatial=False, strong=True)

    def views(self, iteration: int) -> Views:
        """The patches of this rank in an iteration."""
        batch = self.reader.read(self.sampler.references(iteration))
        draw = self.sampler.draw(iteration)
        weak, labels = self.weak(batch.images.to(self.device), batch.labels.to(self.device), draw)
        strong, _ = self.strong(weak, labels, draw + 1)
        return Views(weak, strong, labels != IGNORE_LABEL)


def unlabelled_cases(cases: CaseList, settings: TrainingSettings, recorder: Recorder) -> tuple[Case, ...]:
    """The cases without a label, if the settings ask for them."""
    if not settings.unlabelled_ratio:
        return ()
    found = tuple(case for case in cases if case.label is None)
    if not found:
        recorder.warning("There is no case without a label, so unlabelled_ratio has nothing to take patches of.")
    return found


def ramp_up(done: float, length: float) -> float:
    """Weight exp(-5 (1 - t)^2) after a share `done` of the training, t = done / length up to 1: from 0.007 to 1."""
    t = 1.0 if done >= length else done / length
    return math.exp(-5 * (1 - t) ** 2)


def consistency_loss(logits: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Mean over samples of the mean over voxels of sum_c (p_c - p'_c)^2, p' the teacher's probabilities; in [0, 2].

    Args:
        logits, teacher: (B, C, *S); no gradient flows to the teacher's.
        valid: (B, *S) bool.
    """
    apart = (logits.softmax(1) - teacher.detach().softmax(1)).square().sum(1) * valid
    return (apart.flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)).mean()


def token_consistency(tokens: Tokens, teacher: Tokens, valid: Tensor) -> Tensor:
    """SCDL without labels: L_proxy + 0.1 L_dist of the strong view, by the teacher's pseudo labels of the weak one.

    Args:
        tokens: of the network, for the strong view.
        teacher: of the teacher, for the weak view.
        valid: (B, *S) bool; blocks without any such voxel take no part.
    """
    weights, trust = pseudo_labels(teacher.cosines.float())
    inside = pooled(valid.unsqueeze(1).float()).flatten(1) > 0
    return pull_loss(tokens.cosines.float(), weights, trust * inside)
