"""Images of random contrast from numbers of tissues, all of a batch at once on its device.

The appearance model is that of Billot et al., "SynthSeg: Segmentation of brain MRI scans of any contrast and resolution
without retraining", Medical Image Analysis 2023: every tissue has a normal distribution of intensities with a random
mean and deviation; then come the resolution of the scan, a bias field, noise and a gamma curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from ForgettableSegLib.cases.synthesis_recipe import Recipe

SCAN_SHARE = 0.5  # of the samples that look like the scan of the recipe, where it has one
SCAN_DEVIATION_FACTOR = (0.3, 1.1)
WIDE_MEAN, WIDE_DEVIATION = (0.0, 255.0), (1.0, 25.0)
DARK_SHARE, DARK_MEAN, DARK_DEVIATION = 0.7, (0.0, 15.0), (0.0, 6.0)  # of the background
BLUR_SIGMA = (0.2, 0.9)
THICK_PROBABILITY, THICK_STEP = 0.25, (1.5, 4.0)
COARSE_PROBABILITY, COARSE_STEP = 0.2, (1.0, 1.8)
BIAS_SIGMA, BIAS_NODES = (0.0, 0.35), 4
NOISE_SIGMA = (0.0, 10.0)
GAMMA_SIGMA = 0.25
LOW_QUANTILE, HIGH_QUANTILE, QUANTILE_STRIDE = 0.002, 0.998, 31
STRIP_PROBABILITY, STRIP_MARGIN = 0.25, 3
ZERO_BACKGROUND_PROBABILITY = 0.5
MISSING_PROBABILITY, MISSING_SHARE = 0.15, (0.05, 0.3)


@dataclass(frozen=True)
class Intensities:
    """Distributions of the tissues of each sample.

    Args:
        means, deviations: (B, T).
    """

    means: Tensor
    deviations: Tensor


class ImageSynthesis:
    """Makes images of batches of tissues; the same seed gives the same images on any device.

    Args:
        recipe: of the task.
        context_slices: neighbours on each side of a slice that are channels of the images.
    """

    def __init__(self, recipe: Recipe, context_slices: int = 0) -> None:
        self.recipe = recipe
        self.context_slices = context_slices
        self.inside = torch.tensor([tissue.inside for tissue in recipe.tissues])

    def __call__(self, images: Tensor, labels: Tensor, chosen: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Replace tissues by images in some samples of a batch.

        Args:
            images: (B, C, *S), float32; numbers of tissues where `chosen`, with 2k + 1 slices a channel in 2D.
            labels: (B, *S), uint8.
            chosen: (B,), bool.
            seed: decides all draws.

        Returns:
            Images and labels of the same shapes: z-scored as preprocessing does it for MR, and label 0 where the image
            was cut away.
        """
        if not chosen.any():
            return images, labels
        generator = torch.Generator().manual_seed(seed)
        index = chosen.nonzero().flatten().to(images.device)
        picked = images[index]
        is_2d = images.ndim == 4
        slabs = picked.unflatten(1, (-1, 2 * self.context_slices + 1)) if is_2d else picked
        tissues = slabs[:, 0].long()  # (B', D, H, W), the same in every channel
        kept = self._kept(tissues, generator)
        made = torch.stack([self._image(tissues, kept, generator) for _ in range(slabs.shape[1])], dim=1)
        middle = kept[:, self.context_slices] if is_2d else kept
        labels = labels.index_copy(0, index, labels[index] * middle)
        return images.index_copy(0, index, made.flatten(1, 2) if is_2d else made), labels

    def volume(self, tissues: Tensor, *, like_scan: bool, seed: int) -> Tensor:
        """The image of a whole case.

        Args:
            tissues: (D, H, W), uint8.
            like_scan: near the recipe's means instead of any contrast.
            seed: decides all draws.

        Returns:
            (D, H, W), float32, from 0 to 1.
        """
        generator = torch.Generator().manual_seed(seed)
        batch = tissues[None].long()
        images = self.scan(batch, torch.tensor([like_scan]), generator)
        return (images * ~self._silent_air(batch, generator))[0]

    def draw_intensities(self, like_scan: Tensor, generator: torch.Generator) -> Intensities:
        """Distributions of all tissues.

        Args:
            like_scan: (B,), bool: near the recipe's means instead of anywhere.
            generator: of the draws.
        """
        size, tissues = len(like_scan), self.recipe.tissues
        means = torch.empty(size, len(tissues)).uniform_(*WIDE_MEAN, generator=generator)
        deviations = torch.empty(size, len(tissues)).uniform_(*WIDE_DEVIATION, generator=generator)
        dark = torch.rand(size, generator=generator) < DARK_SHARE
        means[dark, 0] = torch.empty(size).uniform_(*DARK_MEAN, generator=generator)[dark]
        deviations[dark, 0] = torch.empty(size).uniform_(*DARK_DEVIATION, generator=generator)[dark]
        normal = torch.randn(size, len(tissues), generator=generator)
        factor = torch.empty(size, len(tissues)).uniform_(*SCAN_DEVIATION_FACTOR, generator=generator)
        known = torch.tensor([tissue.mean is not None for tissue in tissues])
        centre, spread, inner = torch.tensor(
            [(tissue.mean or 0.0, tissue.spread, tissue.deviation) for tissue in tissues]
        ).unbind(1)
        scan = like_scan[:, None] & known
        means = torch.where(scan, (centre + spread * normal).clamp(min=0), means)
        return Intensities(means, torch.where(scan, inner * factor, deviations))

    def scan(self, tissues: Tensor, like_scan: Tensor, generator: torch.Generator) -> Tensor:
        """Images as a scanner would make them.

        Args:
            tissues: (B, D, H, W), int64.
            like_scan: (B,), see `draw_intensities`.
            generator: of the draws.

        Returns:
            (B, D, H, W), float32, from 0 to 1.
        """
        size, device = len(tissues), tissues.device
        images = sample_tissues(tissues, self.draw_intensities(like_scan, generator), generator)
        thick = torch.rand(size, generator=generator) < THICK_PROBABILITY
        thick_axis = torch.randint(3, (size,), generator=generator)
        coarse = torch.rand(size, generator=generator) < COARSE_PROBABILITY
        for axis in range(3):
            step = torch.ones(size)
            step = torch.where(coarse, torch.empty(size).uniform_(*COARSE_STEP, generator=generator), step)
            thickness = torch.empty(size).uniform_(*THICK_STEP, generator=generator)
            step = torch.where(thick & (thick_axis == axis), thickness, step)
            sigma = torch.empty(size).uniform_(*BLUR_SIGMA, generator=generator)
            sigma = torch.maximum(sigma, 0.4 * step * (step > 1))
            phase = torch.rand(size, generator=generator) * step
            matrix = resolution_matrix(tissues.shape[axis + 1], sigma, step, phase).to(device)
            images = _along(images, matrix, axis)
        images *= bias_field(tuple(tissues.shape), generator).to(device)
        noise = torch.empty(size).uniform_(*NOISE_SIGMA, generator=generator)
        images += (torch.randn(images.shape, generator=generator) * noise.view(-1, 1, 1, 1)).to(device)
        images = _unit_range(images)
        exponent = torch.exp(GAMMA_SIGMA * torch.randn(size, generator=generator)).to(device)
        return images ** exponent.view(-1, 1, 1, 1)

    def _image(self, tissues: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
        like_scan = torch.rand(len(tissues), generator=generator) < SCAN_SHARE
        images = self.scan(tissues, like_scan, generator)
        return z_score(images * (kept & ~self._silent_air(tissues, generator)))

    @staticmethod
    def _silent_air(tissues: Tensor, generator: torch.Generator) -> Tensor:
        """Background that is exactly 0, in some samples; (B, D, H, W), bool."""
        silent = torch.rand(len(tissues), generator=generator) < ZERO_BACKGROUND_PROBABILITY
        return (tissues == 0) & silent.to(tissues.device).view(-1, 1, 1, 1)

    def _kept(self, tissues: Tensor, generator: torch.Generator) -> Tensor:
        """What of a sample is not cut away by stripping the skull or by a small field of view, (B, D, H, W), bool."""
        size, device = len(tissues), tissues.device
        kept = torch.ones(tissues.shape, dtype=torch.bool, device=device)
        stripped = torch.rand(size, generator=generator) < STRIP_PROBABILITY
        margin = int(torch.randint(STRIP_MARGIN + 1, (1,), generator=generator))
        if self.inside.any() and stripped.any():
            rows = stripped.nonzero().flatten().to(device)
            brain = self.inside.to(device)[tissues[rows]].float()
            for window in ((2 * margin + 1, 1), (1, 2 * margin + 1)):
                brain = functional.max_pool2d(brain, window, stride=1, padding=(window[0] // 2, window[1] // 2))
            kept[rows] = brain > 0
        missing = torch.rand(size, generator=generator) < MISSING_PROBABILITY
        share = torch.empty(size).uniform_(*MISSING_SHARE, generator=generator)
        sides = torch.randint(4, (size,), generator=generator)
        for row in missing.nonzero().flatten().tolist():
            axis = 1 + int(sides[row]) // 2
            count = round(float(share[row]) * tissues.shape[axis + 1])
            start = 0 if sides[row] % 2 else tissues.shape[axis + 1] - count
            kept[row].narrow(axis, start, count).fill_(False)
        return kept


def sample_tissues(tissues: Tensor, intensities: Intensities, generator: torch.Generator) -> Tensor:
    """Every voxel from the normal distribution of its tissue.

    Args:
        tissues: (B, *S), int64.
        intensities: of each sample.
        generator: of the draws.

    Returns:
        (B, *S), float32.
    """
    flat, device = tissues.flatten(1), tissues.device
    noise = torch.randn(flat.shape, generator=generator).to(device)
    noise *= intensities.deviations.to(device).gather(1, flat)
    noise += intensities.means.to(device).gather(1, flat)
    return noise.view(tissues.shape)


def resolution_matrix(length: int, sigma: Tensor, step: Tensor, phase: Tensor) -> Tensor:
    """What a scan's resolution does along an axis: a Gaussian blur, samples `step` apart, and straight lines between.

    Args:
        length: voxels along the axis, N.
        sigma: of the blur in voxels, (B,).
        step: voxels between samples, (B,); 1 leaves it at the blur.
        phase: of the first sample, (B,).

    Returns:
        (B, N, N) with rows that add up to 1.
    """
    places = torch.arange(length, dtype=torch.float32)
    apart = places[:, None] - places
    blur = torch.exp(-0.5 * (apart / sigma.clamp(min=0.05).view(-1, 1, 1)) ** 2)
    blur /= blur.sum(2, keepdim=True)
    step, phase = step[:, None], phase[:, None]
    before = torch.floor((places - phase) / step)
    weight = ((places - phase) / step - before)[..., None]
    rows = [
        (phase + (before + more) * step).round().clamp(0, length - 1).long()[..., None].expand(-1, -1, length)
        for more in (0, 1)
    ]
    sampled = (1 - weight) * blur.gather(1, rows[0]) + weight * blur.gather(1, rows[1])
    return torch.where((step == 1)[..., None], blur, sampled)


def bias_field(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Smooth random factors: the exponential of a coarse normal grid, interpolated.

    Args:
        shape: B, D, H, W; along an axis of a few voxels the field is constant.
        generator: of the draws.

    Returns:
        (B, D or 1, H, W).
    """
    size, *space = shape
    nodes = [BIAS_NODES if length > 4 * BIAS_NODES else 1 for length in space]
    sigma = torch.empty(size, 1, 1, 1).uniform_(*BIAS_SIGMA, generator=generator)
    grid = (torch.randn(size, *nodes, generator=generator) * sigma)[:, None]
    target = [length if count > 1 else 1 for length, count in zip(space, nodes, strict=True)]
    return functional.interpolate(grid, target, mode="trilinear", align_corners=True)[:, 0].exp()


def z_score(images: Tensor) -> Tensor:
    """Images by their own mean and deviation, over the voxels that are not 0 where 0 stands for "nothing there".

    The rule is that of `cases.intensity.image_scaling` for an image without negative voxels: 0 is nothing from 1 % on.

    Args:
        images: (B, *S), not negative.

    Returns:
        (B, *S).
    """
    flat = images.flatten(1)
    there = flat != 0
    there |= (~there).float().mean(1, keepdim=True) < 0.01
    count = there.sum(1, keepdim=True).clamp(min=1)
    mean = (flat * there).sum(1, keepdim=True) / count
    deviation = (((flat - mean) * there) ** 2).sum(1, keepdim=True).div(count).sqrt()
    constant = deviation <= 1e-6 * mean.abs()
    return ((flat - mean) / torch.where(constant, 1.0, deviation)).view(images.shape)


def _along(images: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply along an axis of the space: images (B, D, H, W), matrix (B, N, N)."""
    if axis == 0:
        return torch.bmm(matrix, images.flatten(2)).view(images.shape)
    if axis == 1:
        return torch.matmul(matrix[:, None], images)
    return torch.bmm(images.flatten(1, 2), matrix.transpose(1, 2)).view(images.shape)


def _unit_range(images: Tensor) -> Tensor:
    """Cut to quantiles of a part of the voxels, and bring to 0 to 1."""
    flat = images.flatten(1)
    ends = torch.tensor([LOW_QUANTILE, HIGH_QUANTILE], device=images.device)
    # A prime number of voxels apart, so that the sample is of all columns.
    low, high = torch.quantile(flat[:, ::QUANTILE_STRIDE], ends, dim=1)[..., None]
    return ((flat - low) / (high - low).clamp(min=1e-6)).clamp(0, 1).view(images.shape)
