"""The segmentation network: a U-Net with the text-guided fusion at its bottleneck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ForgettableSegLib.network.blocks import SLOPE, Convolutions, Down, Up
from ForgettableSegLib.network.distributions import ClassDistributions
from ForgettableSegLib.network.fusion import TextGuidedFusion
from ForgettableSegLib.network.guidance import PrototypeFusion
from ForgettableSegLib.network.memory import ClassMemory
from ForgettableSegLib.network.outputs import Outputs


class TextGuidedUNet(nn.Module):
    """U-Net in 2D or 3D; any input size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        context_slices: k; the network takes the k slices before and after each slice as further channels (2D only, see
            :func:`~ForgettableSegLib.network.context.with_neighbours`).
        out_channels: C, classes including background.
        features: channels of each level from full resolution down to the bottleneck; 2 levels or more.
        fusion: mode of :class:`TextGuidedFusion`.
        text_shape: (C-1, L); None only where fusion is ``none``.
        text_learned: text is a parameter.
        num_heads: heads of the fusion; divides ``features[-1]``.
        dropout: probability in every convolution block.
        mirror_axes: see :func:`~ForgettableSegLib.network.mirror.mirrored_mean`.
        deep_supervision: output layers at the lower levels of the decoder too, for the training.
        distributions: the classes have learnable distributions, see :class:`ClassDistributions`.
        prototypes: pairs that guide the fusion in place of the classes' prompts, see :class:`PrototypeFusion`.
        memory: the bottleneck is read by a memory of each class, see :class:`ClassMemory`.

    Raises:
        ForgettableSegError: SETTING_INVALID from the fusion; the other values are checked by ``build_network``.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        features: Sequence[int],
        fusion: str = "none",
        text_shape: Sequence[int] | None = None,
        text_learned: bool = False,
        num_heads: int = 4,
        dropout: float = 0.0,
        context_slices: int = 0,
        mirror_axes: Sequence[int] = (),
        deep_supervision: bool = False,
        distributions: bool = False,
        memory: bool = False,
        prototypes: int = 0,
    ) -> None:
        super().__init__()
        self.context_slices = context_slices
        self.mirror_axes = tuple(mirror_axes)
        self.spatial_dims = spatial_dims
        self.feature_size = features[0]
        self.size_divisor = 2 ** (len(features) - 1)
        pairs = list(pairwise(features))
        self.stem = Convolutions(spatial_dims, in_channels * (2 * context_slices + 1), features[0], dropout)
        self.down = nn.ModuleList(Down(spatial_dims, upper, lower, dropout) for upper, lower in pairs)
        self.up = nn.ModuleList(Up(spatial_dims, lower, upper, dropout) for upper, lower in reversed(pairs))
        convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.output = convolution(features[0], out_channels, kernel_size=1)
        # Of half, quarter, ... resolution; the level above the bottleneck is too coarse to teach shapes.
        supervised = features[1:-2] if deep_supervision else ()
        self.lower_outputs = nn.ModuleList(convolution(size, out_channels, kernel_size=1) for size in supervised)
        self.apply(_initialise)
        # Last, so that the same seed gives every fusion mode the same U-Net.
        if prototypes:
            self.fusion = PrototypeFusion(
                channels=features[-1], prototypes=prototypes, length=text_shape[1], num_heads=num_heads
            )
        else:
            self.fusion = TextGuidedFusion(
                mode=fusion,
                spatial_dims=spatial_dims,
                channels=features[-1],
                text_shape=text_shape,
                num_heads=num_heads,
                text_learned=text_learned,
            )
        self.distributions = ClassDistributions(out_channels, features[0]) if distributions else None
        self.memory = ClassMemory(out_channels, features[-1], spatial_dims) if memory else None

    def set_text(self, vectors: Tensor) -> None:
        """Put the text embeddings [C-1, L] in place (nothing to do where fusion is ``none``)."""
        self.fusion.set_text(vectors)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Feature maps of the padded image [B, in_channels, *S], from full resolution to the bottleneck f_visual."""
        maps = [self.stem(self._pad(image))]
        for down in self.down:
            maps.append(down(maps[-1]))
        return maps

    def decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Let the memories answer, fuse the bottleneck with the text, and come back to full resolution.

        Returns:
            The decoder's maps from full resolution, [B, features[0], *padded S], down to the bottleneck's neighbour.
        """
        decoded = [self.fusion(maps[-1] if self.memory is None else self.memory(maps[-1]))]
        for up, skip in zip(self.up, reversed(maps[:-1]), strict=True):
            decoded.insert(0, up(decoded[0], skip))
        return decoded[:-1]

    def forward_with_features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits z [B, C, *S] and the penultimate features [B, feature_size, *S] they are made from."""
        crop = (..., *(slice(0, n) for n in image.shape[2:]))
        features = self.decode(self.encode(image))[0]
        return self.output(features)[crop], features[crop]

    def forward_supervised(self, image: Tensor) -> Outputs:
        """All outputs; a voxel of the supervised lower level i lies on every 2^i-th voxel of the image."""
        crop = (..., *(slice(0, n) for n in image.shape[2:]))
        encoded = self.encode(image)
        maps = self.decode(encoded)
        lower = []
        for level, output in enumerate(self.lower_outputs, start=1):
            size = (math.ceil(n / 2**level) for n in image.shape[2:])
            lower.append(output(maps[level])[(..., *(slice(0, n) for n in size))])
        return Outputs(self.output(maps[0])[crop], maps[0][crop], lower, encoded[-1])

    def forward_with_maps(self, image: Tensor, kind: str) -> Tensor:
        """Logits and what maps of difficulty are made of, [B, C + D, *S].

        Args:
            image: [B, in_channels, *S].
            kind: what comes after the C logits: "penultimate" features [B, feature_size, *S], or a kind of `distances`
                [B, C, *S]; of any other kind, nothing. With memories, C channels tell last which of them answers.
        """
        outputs = self.forward_supervised(image)
        parts = [outputs.logits]
        if kind == "penultimate":
            parts.append(outputs.features)
        elif kind in ("scdl", "memory"):
            parts.append(self.distances(outputs, kind))
        if self.memory is not None:
            parts.append(self._at_voxels(self.memory.answers(outputs.bottleneck), image))
        return torch.cat(parts, dim=1)

    def distances(self, outputs: Outputs, kind: str) -> Tensor:
        """Squared distances of voxels to what was learnt of the classes, float32 [B, C, *S], without gradient.

        Args:
            outputs: of a batch.
            kind: "scdl" for the distributions, "memory" for the nearest vector, which a whole position has in common.
        """
        if kind == "scdl":
            return self.distributions.distances(outputs.features)
        return self._at_voxels(self.memory.distances(outputs.bottleneck), outputs.logits)

    def _at_voxels(self, coarse: Tensor, image: Tensor) -> Tensor:
        """Values of the bottleneck's positions at all of their voxels, as large as the image [B, Ch, *S]."""
        crop = (..., *(slice(0, n) for n in image.shape[2:]))
        return nn.functional.interpolate(coarse, scale_factor=float(self.size_divisor), mode="nearest")[crop]

    def forward(self, image: Tensor) -> Tensor:
        """Image [B, in_channels, *S] to logits z [B, C, *S]."""
        return self.forward_with_features(image)[0]

    def _pad(self, image: Tensor) -> Tensor:
        """Repeat the far border until every axis can be halved at every level.

        An instance norm needs more than one voxel, so the bottleneck is given two along its last axis where it would
        have one.
        """
        target = [math.ceil(n / self.size_divisor) * self.size_divisor for n in image.shape[2:]]
        if all(n == self.size_divisor for n in target):
            target[-1] *= 2
        missing = [wanted - n for wanted, n in zip(target, image.shape[2:], strict=True)]
        if not any(missing):
            return image
        return nn.functional.pad(image, [p for n in reversed(missing) for p in (0, n)], mode="replicate")


def _initialise(module: nn.Module) -> None:
    """He initialisation of the convolutions, as for nnU-Net, whose optimiser settings are used here too."""
    # On the device meta there is nothing to draw, and torch would import its compiler to find that out.
    if isinstance(module, torch.nn.modules.conv._ConvNd) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
