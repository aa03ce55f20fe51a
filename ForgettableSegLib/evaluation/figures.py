"""Figures of a run: where it errs, what its decoder looks at, and how its bank changed. Needs matplotlib (`report`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ForgettableSegLib.evaluation.canvas import new_figure, outline, png
from ForgettableSegLib.network.ensemble import Ensemble

# Missed voxels are red, invented ones blue, and purple what was given to another class, which is both.
ERROR_COLOURS = {1: (0.9, 0.1, 0.1), 2: (0.1, 0.3, 0.95), 3: (0.6, 0.1, 0.7)}
# The last layer of each decoder, before the one that makes logits.
_DECODERS = {"attention_unet": "body.model.1", "unetr": "body.decoder2"}


@dataclass(frozen=True)
class CaseView:
    """A slice of a case.

    Args:
        title: above it.
        image: (H, W).
        reference, prediction: (H, W), class indices.
        activation: (H, W) in [0, 1] by name of the class.
        aspect: height of a pixel / its width.
    """

    title: str
    image: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    activation: Mapping[str, np.ndarray]
    aspect: float = 1.0


@dataclass(frozen=True)
class BankSample:
    """A sample of the bank: a slice with the mask of its main class, and the area of that in mm2."""

    class_name: str
    image: np.ndarray
    mask: np.ndarray
    area_mm2: float


def error_map(reference: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """0 right, 1 missed (FN), 2 invented (FP), 3 given to another class, for class indices of any shape."""
    wrong = reference != prediction
    missed, invented = wrong & (reference > 0), wrong & (prediction > 0)
    return (missed + 2 * invented).astype(np.uint8)


def class_activation(network: nn.Module, architecture: str, image: torch.Tensor, label: int) -> np.ndarray:
    """Grad-CAM (MONAI's) of a class in the last layer of the decoder.

    Args:
        network: on the device of the image.
        architecture: of the network, see `NetworkArguments`.
        image: (1, Ch, *S).
        label: index of the class.

    Returns:
        (*S) in [0, 1], 0 everywhere where nothing speaks for the class; of an ensemble the mean over its members.
    """
    if isinstance(network, Ensemble):
        parts = [class_activation(member, architecture, image, label) for member in network.members]
        return np.mean(parts, axis=0)
    layer = _DECODERS.get(architecture)
    if layer is None:
        ups = network.up if architecture == "unet" else network.body.upsamples
        layer = f"{'up' if architecture == 'unet' else 'body.upsamples'}.{len(ups) - 1}"
    from monai.visualize import GradCAM  # here, for it takes all of MONAI

    # MONAI's own scaling would turn the map upside down.
    explain = GradCAM(network, layer, postprocessing=lambda found: found)
    found = explain(image, class_idx=label)[0, 0].detach().cpu().numpy()
    network.zero_grad(set_to_none=True)
    return found / found.max() if found.max() > 0 else found


def draw_cases(views: Sequence[CaseView], class_names: Sequence[str]) -> bytes:
    """A row a slice: image with reference and prediction, error map, activation of each class; as PNG."""
    from matplotlib.lines import Line2D

    figure = new_figure(2.4 * (3 + len(class_names)), 2.6 * len(views) + 0.3)
    axes = figure.subplots(len(views), 3 + len(class_names), squeeze=False)
    for row, view in zip(axes, views, strict=True):
        activations = (f"where the network\nsees {name}" for name in class_names)
        errors = "errors: missed red, invented\nblue, other class purple"
        titles = (f"{view.title}\nreference", f"{view.title}\nprediction", errors, *activations)
        for panel, title in zip(row, titles, strict=True):
            panel.imshow(view.image, cmap="gray", aspect=view.aspect)
            panel.set_title(title, fontsize="small")
            panel.set_axis_off()
        for panel, labels in zip(row, (view.reference, view.prediction), strict=False):
            for label in range(1, len(class_names) + 1):
                outline(panel, labels == label, f"C{label}")
        row[2].imshow(_overlay(error_map(view.reference, view.prediction)), aspect=view.aspect)
        for panel, name in zip(row[3:], class_names, strict=True):
            if name in view.activation:
                panel.imshow(view.activation[name], cmap="inferno", alpha=0.6, vmin=0, vmax=1, aspect=view.aspect)
    handles = [Line2D([], [], color=f"C{label}", label=name) for label, name in enumerate(class_names, start=1)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    return png(figure)


def draw_bank(snapshots: Mapping[int, Sequence[BankSample]]) -> bytes:
    """Thumbnails of the bank: a row an iteration, hardest first; as PNG."""
    columns = max(len(samples) for samples in snapshots.values())
    figure = new_figure(1.3 * columns + 0.6, 1.5 * len(snapshots))
    axes = figure.subplots(len(snapshots), columns, squeeze=False)
    for row, (iteration, samples) in zip(axes, snapshots.items(), strict=True):
        for panel in row:
            panel.set_axis_off()
        for panel, sample in zip(row, samples, strict=False):
            panel.imshow(sample.image, cmap="gray")
            outline(panel, sample.mask, "yellow")
            panel.set_title(sample.class_name, fontsize="x-small")
        where = {"transform": row[0].transAxes, "rotation": 90, "va": "center", "ha": "right"}
        row[0].text(-0.1, 0.5, f"iteration {iteration}", **where)
    return png(figure)


def draw_bank_history(classes: Mapping[int, Sequence[str]], areas: Mapping[int, Sequence[float]]) -> bytes:
    """Which classes and which sizes the bank held over the iterations; as PNG.

    Args:
        classes: class of every sample, by iteration.
        areas: of its main class in every sample that has one, mm2, by iteration.
    """
    figure = new_figure(11, 4)
    left, right = figure.subplots(1, 2)
    steps = [str(iteration) for iteration in classes]
    bottom = np.zeros(len(steps))
    counts = [Counter(names) for names in classes.values()]
    for name in sorted({name for found in classes.values() for name in found}):
        heights = np.array([float(count[name]) for count in counts])
        left.bar(steps, heights, bottom=bottom, label=name)
        bottom += heights
    left.set(xlabel="iteration", ylabel="samples in the bank")
    left.legend(fontsize="small")
    kept = {iteration: values for iteration, values in areas.items() if len(values)}
    if kept:
        right.boxplot(list(kept.values()), tick_labels=[str(iteration) for iteration in kept])
    right.set(xlabel="iteration", ylabel="area of the main class in the slice, mm²")
    return png(figure)


def draw_curves(rows: Sequence[Mapping[str, str]]) -> bytes:
    """Loss and validation Dice over the iterations of a run; as PNG.

    Args:
        rows: of its history.csv.
    """
    figure = new_figure(11, 4)
    left, right = figure.subplots(1, 2)
    steps = np.array([int(row["iteration"]) + 1 for row in rows])
    for name, label in (("main_loss", "of the batch"), ("replay_loss", "of the replay")):
        values = np.array([float(row[name] or "nan") for row in rows])
        known = np.isfinite(values)
        if known.any():
            thin = {"color": "C0" if name == "main_loss" else "C1"}
            left.plot(steps[known], values[known], alpha=0.3, linewidth=0.8, **thin)
            means, middles = _means(values[known]), _means(steps[known])
            left.plot(middles, means, label=label, **thin)
    left.set(title="Loss", xlabel="iteration", ylabel="loss")
    left.legend(fontsize="small")
    judged = [(int(row["iteration"]) + 1, float(row["validation_dice"])) for row in rows if row["validation_dice"]]
    if judged:
        right.plot(*zip(*judged, strict=True), "o-")
    right.set(
        title="Dice on the validation cases", xlabel="iteration", ylabel="mean Dice over the classes", ylim=(0, 1)
    )
    return png(figure)


def _means(values: np.ndarray, points: int = 60) -> list[float]:
    return [float(part.mean()) for part in np.array_split(values, points) if len(part)]


def evenly(values: Sequence[Any], number: int) -> list[Any]:
    """At most so many of the values, evenly spaced, the first and the last among them."""
    places = np.unique(np.linspace(0, len(values) - 1, min(number, len(values))).round().astype(int))
    return [values[place] for place in places.tolist()]


def _overlay(errors: np.ndarray) -> np.ndarray:
    picture = np.zeros((*errors.shape, 4))
    for value, colour in ERROR_COLOURS.items():
        picture[errors == value] = (*colour, 0.8)
    return picture
