"""What difficulty held-out cases show: the histograms that turn a user's values into percentiles (METHOD: E.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ForgettableSegLib.inference.difficulty import (
    ESTIMATED_CHANNELS,
    SCORE,
    HistogramBuilder,
    class_regions,
    dilate,
    dilation_axes,
    slice_means,
)
from ForgettableSegLib.inference.scoring import FeatureKind, Scorer
from ForgettableSegLib.mining.prototypes import Prototypes
from ForgettableSegLib.network.forward import iterate_logits


class LabelledCase(Protocol):
    """A prepared case: image float32 ``[C, S, H, W]`` and class indices ``[S, H, W]`` (arrays or memory maps)."""

    image: np.ndarray
    label: np.ndarray

    def release(self) -> None:
        """Give the pages of memory maps back."""


def calibrate(
    network: nn.Module,
    prototypes: Prototypes,
    prepared_cases: Sequence[LabelledCase],
    *,
    spatial_dims: int,
    patch_size: Sequence[int],
    device: torch.device | str,
    features: FeatureKind = "centred",
    on_case: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """Histograms of difficulty over held-out cases, as a model package holds them.

    The estimated channels are counted over the predicted foreground and the audit score over the reference
    foreground, both dilated by two voxels: every voxel, every class in every slice (mean), every case (mean)
    and every class of every case (mean).

    Args:
        network: the trained network.
        prototypes: of the trained network.
        prepared_cases: held-out cases, never those that it was trained on.
        spatial_dims: 2 or 3.
        patch_size: the training patch.
        device: where to compute.
        features: what the prototypes are means of, see :func:`~ForgettableSegLib.inference.scoring.feature_kind`.
        on_case: called before every case with cases done and their number; may raise to stop.

    Returns:
        ``calibration.<channel>_<voxel|slice|case|class<index>>`` to float32 ``[512]``, for the channels confidence,
        prototype_ratio and score; what no case showed is left out.
    """
    with_memory = getattr(network, "memory", None) is not None
    builder, scorer = HistogramBuilder(), Scorer(prototypes, features, with_memory=with_memory)
    axes = dilation_axes(0, in_plane=spatial_dims == 2)
    values = range(1, prototypes.num_classes)
    for number, case in enumerate(prepared_cases):
        if on_case is not None:
            on_case(number, len(prepared_cases))
        maps, predicted = _maps(network, scorer, case, spatial_dims=spatial_dims, patch_size=patch_size, device=device)
        reference = np.asarray(case.label)
        for channel, volume in maps.items():
            labels = reference if channel == SCORE else predicted
            _count(builder, channel, volume, labels, values, axes)
        case.release()
    return builder.tensors()


@torch.inference_mode()
def _maps(
    network: nn.Module,
    scorer: Scorer,
    case: LabelledCase,
    *,
    spatial_dims: int,
    patch_size: Sequence[int],
    device: torch.device | str,
) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
    """Difficulty per channel and predicted class indices of a whole case, on the prepared grid."""
    predicted = np.empty(case.label.shape, dtype=np.uint8)
    channels = (*ESTIMATED_CHANNELS, SCORE) if scorer.has_prototypes else ESTIMATED_CHANNELS[:1]
    maps = {channel: np.empty(case.label.shape, dtype=np.float32) for channel in channels}
    outputs = iterate_logits(
        scorer.module(network), case.image, spatial_dims=spatial_dims, patch_size=patch_size, device=device
    )
    for where, output in outputs:
        predicted[where] = scorer.logits(output).argmax(0).cpu()
        computed = [*scorer.estimate(output)]
        if scorer.has_prototypes:
            labels = torch.from_numpy(np.array(case.label[where])).to(output.device)
            computed.append(scorer.audit(output, labels)[-1])
        for channel, part in zip(channels, computed, strict=False):
            maps[channel][where] = part.cpu()
    return maps, predicted


def _count(
    builder: HistogramBuilder,
    channel: str,
    volume: np.ndarray,
    labels: np.ndarray,
    values: Sequence[int],
    axes: Sequence[int],
) -> None:
    region = dilate(np.isin(labels, values), axes=axes)
    if not region.any():
        return
    builder.add(channel, "voxel", volume[region])
    builder.add(channel, "case", volume[region].mean(dtype=np.float64))
    for each in class_regions(labels, values, axes=axes):
        mean = volume[each.box][each.region].mean(dtype=np.float64)
        builder.add(channel, f"class{each.value}", mean)
        present = each.mask.any(axis=(1, 2))
        builder.add(channel, "slice", slice_means(volume[each.box], each.region, slice_axis=0)[present])
