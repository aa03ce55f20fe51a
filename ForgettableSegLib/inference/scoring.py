"""Difficulty of each voxel from a model's outputs, with the features that its prototypes are means of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from ForgettableSegLib.mining.prototypes import Prototypes
from ForgettableSegLib.mining.scores import difficulty_scores, estimated_difficulty

FeatureKind = Literal["centred", "logits", "penultimate", "scdl", "memory"]


def feature_kind(settings: Mapping[str, Any]) -> FeatureKind:
    """Which features a training with these settings (``score_mode``, ``score_features``) made prototypes of.

    With ``prototypes`` that the network has learnt itself it is their kind: the features are distances to them then.
    """
    if settings.get("prototypes", "ema") != "ema":
        return settings["prototypes"]
    if settings.get("score_features") == "penultimate":
        return "penultimate"
    return "logits" if settings.get("score_mode") == "paper" else "centred"


class _LogitsAndFeatures(nn.Module):
    """A network whose output is its logits and what else maps are made of, ``[B, C + D (+ C), *S]``."""

    def __init__(self, network: nn.Module, kind: FeatureKind) -> None:
        super().__init__()
        self.network = network
        self.kind = kind
        self.context_slices = getattr(network, "context_slices", 0)
        self.mirror_axes = getattr(network, "mirror_axes", ())
        self.train(network.training)

    def forward(self, image: Tensor) -> Tensor:
        return self.network.forward_with_maps(image, self.kind)


@dataclass(frozen=True)
class Scorer:
    """Scores what a network puts out, slab by slab.

    Args:
        prototypes: of the trained model; they also tell the number of classes.
        kind: what they are means of: logits centred over the classes, plain logits, or penultimate features; else what
            the network itself has learnt of the classes, and measures the distances to.
        with_memory: the network has a memory of each class, and it is asked which of them answers where.
    """

    prototypes: Prototypes
    kind: FeatureKind = "centred"
    with_memory: bool = False

    @property
    def has_prototypes(self) -> bool:
        """Whether the model was trained with prototypes at all."""
        return bool(self.prototypes.initialised.any())

    def module(self, network: nn.Module) -> nn.Module:
        """The network to run, so that its output can be scored."""
        is_plain = self.kind in ("centred", "logits") and not self.with_memory
        return network if is_plain else _LogitsAndFeatures(network, self.kind)

    def logits(self, output: Tensor) -> Tensor:
        """The logits ``[C, s, H, W]`` in an output ``[C (+ D), s, H, W]``."""
        return output[: self.prototypes.num_classes]

    def estimate(self, output: Tensor) -> Tensor:
        """Estimated difficulty without a reference.

        Args:
            output: of :meth:`module`, ``[C (+ D), s, H, W]``.

        Returns:
            ``[2, s, H, W]`` in [0, 1]: lack of confidence and prototype ratio.
        """
        logits, features = self._batch(output)
        return estimated_difficulty(logits, self.prototypes, features=features).transpose(0, 1)

    def answering(self, output: Tensor) -> Tensor:
        """Which memory answers: ``[s, H, W]`` from 0 (that of the background) to 1 (that of the last class)."""
        count = self.prototypes.num_classes
        return output[-count:].argmax(0).float() / (count - 1)

    def audit(self, output: Tensor, labels: Tensor) -> Tensor:
        """T1 to T4 (bounded, so each is in [0, 1]) and their sum against a reference.

        Args:
            output: of :meth:`module`, ``[C (+ D), s, H, W]``.
            labels: class indices ``[s, H, W]``, 255 where there is none.

        Returns:
            ``[5, s, H, W]``.
        """
        logits, features = self._batch(output)
        scores = difficulty_scores(logits, labels, self.prototypes, features=features, mode="bounded")
        return scores.voxels.transpose(0, 1)

    def _batch(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits and features with the slices as the batch ``[s, C, H, W]``, which is how 2D networks put them out."""
        batch = output.transpose(0, 1)
        count = self.prototypes.num_classes
        if self.with_memory:
            batch = batch[:, :-count]
        if self.kind == "centred":
            return batch, None
        return batch[:, :count], batch if self.kind == "logits" else batch[:, count:]
