"""The U-Net's blocks, of torch's own layers: MONAI's package takes longer to import than a crop takes to segment.

Names of parameters and values are those of MONAI's ``BasicUNet``, as a test compares, so weights can be exchanged.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

SLOPE = 0.01
"""Negative slope of the activation."""

_CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_POOLING = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_UPSAMPLING = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class Convolutions(nn.Sequential):
    """Twice: convolution of 3 voxels, instance norm, dropout, leaky ReLU; [B, inputs, *S] to [B, outputs, *S].

    Args:
        spatial_dims: 2 or 3.
        inputs: channels that come in.
        outputs: channels that go out.
        dropout: probability that a value is left out.
    """

    def __init__(self, spatial_dims: int, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        for index, channels in enumerate((inputs, outputs)):
            after = OrderedDict(N=_NORM[spatial_dims](outputs, affine=True))
            if dropout:
                after["D"] = nn.Dropout(dropout)
            after["A"] = nn.LeakyReLU(SLOPE, inplace=True)
            # A bias before a normalisation is taken out again by it.
            convolution = _CONVOLUTION[spatial_dims](channels, outputs, kernel_size=3, padding=1, bias=False)
            self.add_module(f"conv_{index}", nn.Sequential(OrderedDict(conv=convolution, adn=nn.Sequential(after))))


class Down(nn.Sequential):
    """Half the resolution by the largest of 2 voxels an axis, then :class:`Convolutions`; arguments as there."""

    def __init__(self, spatial_dims: int, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.add_module("max_pooling", _POOLING[spatial_dims](2))
        self.add_module("convs", Convolutions(spatial_dims, inputs, outputs, dropout))


class Up(nn.Module):
    """Twice the resolution by a transposed convolution, joined with the encoder's map, then :class:`Convolutions`.

    Args:
        spatial_dims: 2 or 3.
        inputs: channels of the map that is brought up.
        outputs: channels of the encoder's map, and of the result.
        dropout: probability that a value is left out.
    """

    def __init__(self, spatial_dims: int, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        # The upsampled map gets half of its channels, unless that is fewer than the map it is joined with.
        raised = inputs // 2 if inputs // 2 >= outputs else inputs
        self.upsample = nn.Sequential(OrderedDict(deconv=_UPSAMPLING[spatial_dims](inputs, raised, 2, stride=2)))
        self.convs = Convolutions(spatial_dims, outputs + raised, outputs, dropout)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """[B, inputs, *S/2] and [B, outputs, *S] to [B, outputs, *S]."""
        return self.convs(torch.cat([skip, self.upsample(deep)], dim=1))
