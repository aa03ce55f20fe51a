"""Text-guided fusion (TGF): the prompts' embeddings meet the encoder's output by attention (Eq. 1-4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

FUSION_MODES = ("literal", "residual", "visual_query", "none")


class TextGuidedFusion(nn.Module):
    """Attention between the text embeddings of the foreground classes and the encoder's output.

    ``literal``
        Eq. 1-4 as printed. Every query is the same vector, so f' is the same at every position.
    ``residual``
        f' = f_visual + MultiHead(Q, K, V), the Add of the cited attention sublayer, so that space survives.
    ``visual_query``
        Roles reversed: each position asks the classes' texts. Q = LN(f_visual) + position, K = V = LN(Linear(f_CLIP)),
        one token a class, added to f_visual. The only mode in which text acts differently at different positions.
    ``none``
        f' = f_visual; no parameters.

    ``residual`` and ``visual_query`` start with an output projection of zeros, so a new network is the plain U-Net.

    Args:
        mode: one of :data:`FUSION_MODES`.
        spatial_dims: 2 or 3.
        channels: d, channels of f_visual.
        text_shape: (C-1, L), rows of text (foreground classes) and length of an embedding; None only with ``none``.
        num_heads: heads of the attention; must divide ``channels``.
        text_learned: the text is a parameter that starts random (a control), instead of a fixed embedding.

    Raises:
        ForgettableSegError: SETTING_INVALID where a value is outside of what is described.
    """

    def __init__(
        self,
        *,
        mode: str,
        spatial_dims: int,
        channels: int,
        text_shape: Sequence[int] | None = None,
        num_heads: int = 4,
        text_learned: bool = False,
    ) -> None:
        super().__init__()
        _check(mode, spatial_dims, channels, text_shape, num_heads)
        self.mode = mode
        self.spatial_dims = spatial_dims
        if mode == "none" or text_shape is None:
            return
        classes, length = text_shape
        if text_learned:
            self.text = nn.Parameter(nn.functional.normalize(torch.randn(classes, length), dim=1))
        else:
            self.register_buffer("text", torch.zeros(classes, length))
        per_class = mode == "visual_query"
        self.text_projection = nn.Linear(length if per_class else classes * length, channels)
        self.text_norm = nn.LayerNorm(channels)
        self.visual_norm = nn.LayerNorm(channels)
        # The background has no prompt: a zero token lets a position attend to no class. Without it one class alone
        # would get the weight 1 everywhere, and the result would not depend on the image.
        self.attention = nn.MultiheadAttention(channels, num_heads, batch_first=True, add_zero_attn=per_class)
        if mode != "literal":
            nn.init.zeros_(self.attention.out_proj.weight)  # its bias starts at zero anyway

    def set_text(self, vectors: Tensor) -> None:
        """Put the embeddings f_CLIP [C-1, L] in place.

        Raises:
            ForgettableSegError: SETTING_INVALID where the shape is not the one the network was built for.
        """
        if self.mode == "none":
            return
        if tuple(vectors.shape) != tuple(self.text.shape):
            raise ForgettableSegError(
                ErrorCode.SETTING_INVALID,
                f"The text embeddings have shape {tuple(vectors.shape)}, but the network was built for "
                f"{tuple(self.text.shape)} (foreground classes, embedding length).",
            )
        with torch.no_grad():
            self.text.copy_(vectors)

    def forward(self, visual: Tensor) -> Tensor:
        """f_visual [B, d, *S] to f' of the same shape."""
        if self.mode == "none":
            return visual
        if self.mode == "visual_query":
            return visual + self._visual_query(visual)
        fused = self.attend(self.text_query(visual.shape[0]), self.visual_tokens(visual))
        # Every query is the same row, so every row of the answer is: attend once and broadcast.
        fused = fused.transpose(1, 2).reshape(*fused.shape[::2], *[1] * self.spatial_dims)
        return visual + fused if self.mode == "residual" else fused.expand_as(visual)

    def new_text_feature(self) -> Tensor:
        """Eq. 1: f_new = LN(Linear(Reshape(f_CLIP))) as [1, d]; all classes' embeddings as one row."""
        return self.text_norm(self.text_projection(self.text.reshape(1, -1)))

    def text_query(self, batch_size: int) -> Tensor:
        """Eq. 2: Q as [B, 1, d], the one row that the paper repeats at all H'W' positions."""
        return self.new_text_feature().unsqueeze(0).expand(batch_size, -1, -1)

    def visual_tokens(self, visual: Tensor) -> Tensor:
        """Eq. 3: K = V = LN(f_visual), from [B, d, *S] to [B, H'W', d]."""
        return self.visual_norm(visual.flatten(2).transpose(1, 2))

    def attend(self, query: Tensor, keys: Tensor) -> Tensor:
        """Eq. 4: MultiHead(Q, K, V) with K = V, of the shape of ``query``."""
        return self.attention(query, keys, keys, need_weights=False)[0]

    def _visual_query(self, visual: Tensor) -> Tensor:
        """What each position [B, d, *S] takes from the classes' texts."""
        tokens = self.visual_tokens(visual)
        query = tokens + sin_cos_position(visual.shape[2:], visual.shape[1], device=visual.device).to(tokens.dtype)
        text = self.text_norm(self.text_projection(self.text)).expand(visual.shape[0], -1, -1)
        return self.attend(query, text).transpose(1, 2).reshape(visual.shape)


def sin_cos_position(size: Sequence[int], channels: int, *, device: torch.device | None = None) -> Tensor:
    """Sine-cosine encoding of the positions of a grid in 1, 2 or 3 dimensions.

    The channels are shared out evenly over axes, sines and cosines; what does not divide stays zero (MONAI's own
    refuses such numbers of channels, e.g. 256 in 3D).

    Args:
        size: voxels along each axis.
        channels: d.

    Returns:
        [product of size, channels], in [-1, 1], positions in C order.
    """
    bands = channels // (2 * len(size))
    frequencies = 10000.0 ** -(torch.arange(bands, device=device, dtype=torch.float32) / max(bands, 1))
    grid = torch.meshgrid(*(torch.arange(n, device=device, dtype=torch.float32) for n in size), indexing="ij")
    angles = torch.stack(grid, dim=-1).reshape(-1, len(size), 1) * frequencies
    encoding = torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return nn.functional.pad(encoding, (0, channels - encoding.shape[1]))


def _check(mode: str, spatial_dims: int, channels: int, text_shape: Sequence[int] | None, num_heads: int) -> None:
    def reject(message: str) -> NoReturn:
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, message)

    if mode not in FUSION_MODES:
        reject(f"fusion is '{mode}', but it must be one of: {', '.join(FUSION_MODES)}.")
    if spatial_dims not in (2, 3):
        reject(f"spatial_dims is {spatial_dims}, but it must be 2 or 3.")
    if mode == "none":
        return
    if text_shape is None or len(text_shape) != 2 or min(text_shape) < 1:
        reject(f"fusion '{mode}' needs text_shape (foreground classes, embedding length), but it is {text_shape}.")
    if num_heads < 1 or channels % num_heads:
        reject(f"num_heads is {num_heads}, but it must divide the last number of features, {channels}.")
