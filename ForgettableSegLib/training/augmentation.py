"""Random changes of a batch of patches, all of the batch at once on its device.

The four intensity changes are the paper's (gamma, Gaussian noise, Gaussian blur, brightness); their magnitudes and
probabilities, which the paper does not state, are nnU-Net's. Rotation, scaling and mirroring are optional, and so are
nnU-Net's further changes of intensity: contrast, low resolution, and gamma on the inverted image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor

from ForgettableSegLib.cases.labels import IGNORE_LABEL
from ForgettableSegLib.network.mirror import mirror

NOISE_PROBABILITY, NOISE_SIGMA = 0.10, (0.0, 0.32)
BLUR_PROBABILITY, BLUR_SIGMA = 0.20, (0.5, 1.0)
BRIGHTNESS_PROBABILITY, BRIGHTNESS_FACTOR = 0.15, (0.75, 1.25)
GAMMA_PROBABILITY, GAMMA_EXPONENT = 0.30, (0.7, 1.5)
CONTRAST_PROBABILITY, CONTRAST_FACTOR = 0.15, (0.75, 1.25)
LOW_RESOLUTION_PROBABILITY, LOW_RESOLUTION_ZOOM = 0.25, (0.5, 1.0)
INVERTED_GAMMA_PROBABILITY = 0.10
SPATIAL_PROBABILITY, ROTATION_RADIANS, SCALE_FACTOR = 0.50, math.radians(15), (0.85, 1.18)


class Augmentation:
    """Draws and applies random changes; the same seed gives the same changes on any device.

    Args:
        intensity: apply the four intensity changes.
        spatial: rotate and scale as well.
        strong: contrast, low resolution and inverted gamma as well.
        mirror_axes: mirror along each of these axes with a probability of one half, see `mirror`.
        context_slices: neighbours on each side of a slice that are channels of the images.
    """

    def __init__(
        self,
        *,
        intensity: bool,
        spatial: bool,
        strong: bool = False,
        mirror_axes: Sequence[int] = (),
        context_slices: int = 0,
    ) -> None:
        self.intensity = intensity
        self.spatial = spatial
        self.strong = strong
        self.mirror_axes = tuple(mirror_axes)
        self.context_slices = context_slices

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Change a batch.

        Args:
            images: (B, C, *S), float32.
            labels: (B, *S), uint8; 255 is no label.
            seed: decides all draws.

        Returns:
            Images and labels of the same shapes. Voxels that a rotation brings in from outside get label 255.
        """
        generator = torch.Generator().manual_seed(seed)
        for axis in self.mirror_axes:
            images, labels = self._mirror(images, labels, axis, generator)
        if self.spatial:
            images, labels = self._rotate_and_scale(images, labels, generator)
        if self.strong:
            images = contrast(images, self._draw(images, CONTRAST_PROBABILITY, CONTRAST_FACTOR, 1.0, generator))
            images = self._low_resolution(images, generator)
            exponent = self._draw(images, INVERTED_GAMMA_PROBABILITY, GAMMA_EXPONENT, 1.0, generator)
            images = -gamma(-images, exponent)
        if self.intensity:
            images = blur(images, self._draw(images, BLUR_PROBABILITY, BLUR_SIGMA, 0.0, generator))
            images = images * self._draw(images, BRIGHTNESS_PROBABILITY, BRIGHTNESS_FACTOR, 1.0, generator)
            images = gamma(images, self._draw(images, GAMMA_PROBABILITY, GAMMA_EXPONENT, 1.0, generator))
            sigma = self._draw(images, NOISE_PROBABILITY, NOISE_SIGMA, 0.0, generator)
            noise = torch.randn(images.shape, generator=generator).to(images.device)
            images = images + sigma * noise
        return images, labels

    @staticmethod
    def _draw(
        images: Tensor, probability: float, bounds: tuple[float, float], identity: float, generator: torch.Generator
    ) -> Tensor:
        """One value a sample, `identity` for samples left alone; shaped to multiply the images."""
        size = len(images)
        values = torch.empty(size).uniform_(*bounds, generator=generator)
        untouched = torch.rand(size, generator=generator) >= probability
        return values.masked_fill_(untouched, identity).to(images.device).view(-1, *[1] * (images.ndim - 1))

    @staticmethod
    def _low_resolution(images: Tensor, generator: torch.Generator) -> Tensor:
        """Sample some of the images down and back up, all by one zoom, which the batch draws."""
        zoom = float(torch.empty(1).uniform_(*LOW_RESOLUTION_ZOOM, generator=generator))
        chosen = (torch.rand(len(images), generator=generator) < LOW_RESOLUTION_PROBABILITY).nonzero().flatten()
        if not len(chosen):
            return images
        chosen = chosen.to(images.device)
        size = images.shape[2:]
        coarse = functional.interpolate(images[chosen], [max(1, round(n * zoom)) for n in size], mode="nearest-exact")
        mode = "bilinear" if len(size) == 2 else "trilinear"
        return images.index_copy(0, chosen, functional.interpolate(coarse, list(size), mode=mode, align_corners=False))

    def _mirror(self, images: Tensor, labels: Tensor, axis: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
        turned = mirror(images, (axis,), context_slices=self.context_slices)
        turned_labels = mirror(labels[:, None], (axis,))[:, 0]
        images = torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), turned, images)
        return images, torch.where(chosen.view(-1, *[1] * (labels.ndim - 1)), turned_labels, labels)

    def _rotate_and_scale(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        size, dims = len(images), images.ndim - 2
        scale = self._draw(images, SPATIAL_PROBABILITY, SCALE_FACTOR, 1.0, generator).flatten()
        bounds = (-ROTATION_RADIANS, ROTATION_RADIANS)
        angles = [
            self._draw(images, SPATIAL_PROBABILITY, bounds, 0.0, generator).flatten()
            for _ in range(1 if dims == 2 else 3)
        ]
        matrix = torch.eye(dims, device=images.device).repeat(size, 1, 1) * scale[:, None, None]
        for (first, second), angle in zip(((0, 1), (0, 2), (1, 2)), angles, strict=False):
            turn = torch.eye(dims, device=images.device).repeat(size, 1, 1)
            turn[:, first, first] = turn[:, second, second] = angle.cos()
            turn[:, first, second], turn[:, second, first] = -angle.sin(), angle.sin()
            matrix = turn @ matrix
        # affine_grid works in coordinates of -1..1 an axis (x first): a rotation must know the patch's aspect ratio.
        half = torch.tensor([float(n) for n in reversed(images.shape[2:])], device=images.device)
        matrix = matrix * half[None, None, :] / half[None, :, None]
        theta = torch.cat([matrix, torch.zeros(size, dims, 1, device=images.device)], dim=2)
        grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
        turned = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        # Shifted so that what comes in from outside (zero) is "no label".
        shifted = labels[:, None].to(images.dtype) - IGNORE_LABEL
        moved = functional.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)
        return turned, (moved[:, 0] + IGNORE_LABEL).round().to(labels.dtype)


def gamma(images: Tensor, exponent: Tensor) -> Tensor:
    """Raise each channel, scaled to 0..1 over its patch, to a power, and scale it back.

    Args:
        images: (B, C, *S).
        exponent: (B, 1, ...); 1 leaves a sample as it is.

    Returns:
        (B, C, *S).
    """
    voxels = tuple(range(2, images.ndim))
    low, high = images.amin(voxels, keepdim=True), images.amax(voxels, keepdim=True)
    extent = (high - low).clamp(min=1e-7)
    return torch.where(exponent == 1, images, ((images - low) / extent) ** exponent * extent + low)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Stretch each channel about its mean, held within the range that it had.

    Args:
        images: (B, C, *S).
        factor: (B, 1, ...); 1 leaves a sample as it is.

    Returns:
        (B, C, *S).
    """
    voxels = tuple(range(2, images.ndim))
    mean = images.mean(voxels, keepdim=True)
    low, high = images.amin(voxels, keepdim=True), images.amax(voxels, keepdim=True)
    stretched = torch.minimum(torch.maximum((images - mean) * factor + mean, low), high)
    return torch.where(factor == 1, images, stretched)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a width of its own for each sample.

    Args:
        images: (B, C, *S).
        sigma: (B, 1, ...) in voxels; 0 leaves a sample as it is.

    Returns:
        (B, C, *S).
    """
    touched = (sigma.flatten() > 0).nonzero().flatten()
    if not len(touched):
        return images
    part = images[touched]
    size, channels = part.shape[:2]
    radius = math.ceil(3 * BLUR_SIGMA[1])
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (offsets / sigma.flatten()[touched, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    dims = images.ndim - 2
    convolve = functional.conv2d if dims == 2 else functional.conv3d
    flat = part.reshape(1, size * channels, *part.shape[2:])
    for axis in range(dims):
        shape = [size * channels, 1, *[1] * dims]
        shape[2 + axis] = len(offsets)
        padding = [0] * (2 * dims)
        # F.pad counts axes from the last.
        padding[2 * (dims - 1 - axis) : 2 * (dims - axis)] = [radius, radius]
        padded = functional.pad(flat, padding, mode="replicate")
        flat = convolve(padded, kernels.reshape(shape), groups=size * channels)
    return images.index_copy(0, touched, flat.reshape(part.shape))
