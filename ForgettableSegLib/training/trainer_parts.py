"""Parts of a trainer that only some settings ask for, made where they do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.training.augmentation import Augmentation
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.gradients import Learner
from ForgettableSegLib.training.memory_writer import MemoryWriter
from ForgettableSegLib.training.patches import PatchReader
from ForgettableSegLib.training.prototype_fit import PrototypeFitter
from ForgettableSegLib.training.settings import TrainingSettings


def make_augmentation(settings: TrainingSettings, network: nn.Module, reader: PatchReader) -> Augmentation:
    """The random changes of patches."""
    return Augmentation(
        intensity=settings.augmentation,
        spatial=settings.spatial_augmentation,
        strong=settings.strong_augmentation,
        mirror_axes=network.mirror_axes,
        context_slices=reader.context_slices,
    )


def make_writer(settings: TrainingSettings, network: nn.Module, group: ProcessGroup) -> MemoryWriter | None:
    """Who writes the memories of the classes, where the network has any."""
    if network.memory is None:
        return None
    block, rule = network.size_divisor, settings.memory_items
    return MemoryWriter(network.memory, rule=rule, block=block, seed=settings.seed, group=group)


def make_fitter(
    settings: TrainingSettings, learner: Learner, reader: PatchReader, texts: Tensor | None, device: torch.device
) -> PrototypeFitter | None:
    """Who fits the prototypes that guide the network, where there are any."""
    network = learner.network
    if getattr(getattr(network, "fusion", None), "mode", "none") != "prototypes":
        return None
    followers = () if learner.average is None else (learner.average.network.fusion,)
    return PrototypeFitter(
        network.fusion, network, reader, texts, seed=settings.seed, device=device, followers=followers
    )


def scored_features(settings: TrainingSettings, network: nn.Module) -> str:
    """What mining compares with prototypes, see `Learner`.

    Raises:
        ForgettableSegError: SETTING_INVALID where the network, that of a model to start from, has no such thing.
    """
    if not settings.pbs:
        return "logits"
    if settings.prototypes != "ema":
        return settings.prototypes
    if settings.score_features == "penultimate" and not network.feature_size:
        msg = "The model's architecture has no penultimate features that scores could be made of."
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, msg, hint="Set score_features to logits.")
    return settings.score_features
