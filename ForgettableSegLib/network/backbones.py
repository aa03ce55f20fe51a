"""MONAI's segmentation networks behind the face of `TextGuidedUNet`, for comparisons. They know no text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monai.inferers.utils import sliding_window_inference
from monai.networks.nets import UNETR, AttentionUnet, DynUNet
from monai.utils import OptionalImportError
from torch import Tensor, nn

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.network.arguments import UNETR_PATCH
from ForgettableSegLib.network.outputs import Outputs


class Backbone(nn.Module):
    """A network of MONAI for any input size.

    Args:
        architecture: "attention_unet", "unetr" or "nnunet" (the plain U-Net of nnU-Net, MONAI's DynUNet).
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: C, classes including background.
        features: channels of each level. UNETR takes the first for its decoder, and three times the last for its
            transformer, which is ViT-B at 256.
        num_heads: a third of the heads of UNETR's transformer.
        dropout: probability.
        window: the only input size, voxels, that UNETR's positions are learnt for; larger images are seen window by
            window.
        mirror_axes: see :func:`~ForgettableSegLib.network.mirror.mirrored_mean`.

    Raises:
        ForgettableSegError: PACKAGE_MISSING where MONAI needs one more package for it.
    """

    feature_size = 0  # there are no penultimate features to be had
    distributions = None
    memory = None

    def __init__(
        self,
        *,
        architecture: str,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        features: Sequence[int],
        num_heads: int,
        dropout: float,
        window: Sequence[int] | None,
        mirror_axes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.mirror_axes = tuple(mirror_axes)
        self.window = None if window is None else tuple(window)
        self.size_divisor = UNETR_PATCH if architecture == "unetr" else 2 ** (len(features) - 1)
        strides = [2] * (len(features) - 1)
        common = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": out_channels}
        if architecture == "attention_unet":
            self.body = AttentionUnet(**common, channels=features, strides=strides, dropout=dropout)
        elif architecture == "nnunet":
            self.body = DynUNet(
                **common,
                kernel_size=[3] * len(features),
                strides=[1, *strides],
                upsample_kernel_size=strides,
                filters=features,
                dropout=dropout or None,
            )
        else:
            self.body = _unetr(
                **common,
                img_size=self.window,
                feature_size=features[0],
                hidden_size=3 * features[-1],
                mlp_dim=12 * features[-1],
                num_heads=3 * num_heads,
                dropout_rate=dropout,
            )

    def set_text(self, vectors: Tensor) -> None:
        """Nothing to do: no text takes part."""

    def forward_with_features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C, *S], and no features [B, 0, *S]."""
        logits = self(image)
        return logits, logits[:, :0]

    def forward_supervised(self, image: Tensor) -> Outputs:
        """As `forward_with_features`; no lower level is supervised."""
        return Outputs(*self.forward_with_features(image), [])

    def forward(self, image: Tensor) -> Tensor:
        """Image [B, in_channels, *S] to logits z [B, C, *S]."""
        size = image.shape[2:]
        target = self.window or [max(2, math.ceil(n / self.size_divisor)) * self.size_divisor for n in size]
        missing = [max(0, wanted - n) for wanted, n in zip(target, size, strict=True)]
        if any(missing):
            image = nn.functional.pad(image, [p for n in reversed(missing) for p in (0, n)], mode="replicate")
        if self.window is not None and tuple(image.shape[2:]) != self.window:
            logits = sliding_window_inference(image, self.window, 4, self.body, overlap=0.5)
        else:
            logits = self.body(image)
        return logits[(..., *(slice(0, n) for n in size))]


def _unetr(**arguments: Any) -> UNETR:
    try:
        return UNETR(**arguments)
    except OptionalImportError as error:
        msg = "The architecture 'unetr' needs the package einops, which is not installed."
        raise ForgettableSegError(ErrorCode.PACKAGE_MISSING, msg, hint="Install forgettableseg[report].") from error
