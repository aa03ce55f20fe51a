"""From a finished run to a model package."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from ForgettableSegLib import __version__
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.training.run import TrainingOutcome

_PACKAGES = ("torch", "monai", "numpy", "SimpleITK")
# Where files lie on the machine that trained is nobody's business, and how long it may take is no property of a model.
_PRIVATE_SETTINGS = ("text_path", "text_pretrained", "minutes", "checkpoint_every")


def model_package(
    outcome: TrainingOutcome,
    *,
    device: torch.device,
    calibration: Mapping[str, Tensor],
    held_out: Mapping[str, Any] | None = None,
    card: Mapping[str, Any] | None = None,
    documents: Mapping[str, str] | None = None,
) -> ModelPackage:
    """The model of a run as a package; the same run gives the same package, byte for byte.

    Args:
        outcome: of the run.
        device: that it was trained on.
        calibration: histograms of difficulty on cases that it was not trained on.
        held_out: measures on the held-out cases, for the card.
        card: title, description, licence, attribution and the like.
        documents: README.md and LICENSE.txt of the package.
    """
    config = outcome.config
    settings = {name: value for name, value in config.settings.to_dict().items() if name not in _PRIVATE_SETTINGS}
    metrics: dict[str, Any] = {}
    if outcome.validation_dice is not None:
        metrics["validation"] = {"mean_dice": round(outcome.validation_dice, 6), "count": len(outcome.validation_cases)}
    if held_out:
        metrics["held_out"] = dict(held_out)
    content = {
        "name": config.name,
        "task": config.task.to_dict(),
        "preprocessing": config.preprocessing.to_dict(),
        "network": config.network,
        "patch_size": list(config.patch_size),
        "text": config.text,
        "preset": config.settings.preset,
        "training": settings,
        "metrics": metrics,
        "provenance": _provenance(outcome, device),
        **(card or {}),
    }
    return ModelPackage.assemble(
        content,
        outcome.network,
        prototypes=outcome.prototypes if config.settings.pbs else None,
        calibration=calibration,
        documents=documents,
    )


def _provenance(outcome: TrainingOutcome, device: torch.device) -> dict[str, Any]:
    config = outcome.config
    return {
        "software": {"forgettableseg": __version__, "python": platform.python_version()}
        | {name: version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "seed": config.settings.seed,
        "iterations": outcome.iterations,
        "best_iteration": outcome.best_iteration,
        "started_from": config.start["name"] if config.start else None,
        "kept_start": outcome.kept_start,
        "number_of_training_volumes": len(config.split.train),
    }
