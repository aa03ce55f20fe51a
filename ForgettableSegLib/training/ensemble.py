"""From several finished runs to one model that averages their networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from ForgettableSegLib.cases.cache import CaseCache
from ForgettableSegLib.cases.split import Split
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.memory import peak_memory
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.build import NetworkArguments
from ForgettableSegLib.network.ensemble import Ensemble
from ForgettableSegLib.training.config import RunConfig
from ForgettableSegLib.training.run import TrainingOutcome

_IGNORED = {"mirror_axes": ()}  # members may differ in these


def combine_runs(folders: Sequence[Path], output: Path, *, cache: Path, same_split: bool = True) -> TrainingOutcome:
    """Average the best networks of finished runs.

    The prototypes are averaged too: the class means of a mean of logits are the means of the class means.

    Args:
        folders: of two runs or more, with the same cases, split, task, preprocessing, patch and network.
        output: folder of the outcome.
        cache: where prepared cases are kept.
        same_split: the runs have the same split, which the outcome has, too; else together they have trained on all
            cases, as the folds of a cross-validation do.

    Returns:
        An outcome that can be calibrated, judged and exported as that of a run; its settings are those of the first.

    Raises:
        ForgettableSegError: REQUEST_INVALID for less than two runs; RUN_MISMATCH, naming the run that does not go with
            the first one; MODEL_MISSING.
    """
    if len(folders) < 2:
        raise ForgettableSegError(ErrorCode.REQUEST_INVALID, "An ensemble needs two runs or more.")
    configs = [RunConfig.read(folder) for folder in folders]
    packages = [ModelPackage.read(folder / "model") for folder in folders]
    first, arguments = configs[0], [NetworkArguments.from_dict(each.card["network"]) for each in packages]
    for folder, config, own in zip(folders, configs, arguments, strict=True):
        parts = ("task", "preprocessing", "text", *(["split"] if same_split else []))
        different = [name for name in parts if getattr(config, name) != getattr(first, name)]
        if tuple(config.patch_size) != tuple(first.patch_size):
            different.append("patch size")
        if dataclasses.replace(own, **_IGNORED) != dataclasses.replace(arguments[0], **_IGNORED) or own.members:
            different.append("network")
        if config.settings.pbs != first.settings.pbs:
            different.append("use of prototypes")
        if different:
            msg = f"The run in {folder} cannot be averaged with {folders[0]}: their {' and '.join(different)} differ."
            raise ForgettableSegError(ErrorCode.RUN_MISMATCH, msg)
    if any(config.settings.has_own_prototypes for config in configs):
        msg = "Networks whose prototypes are not means of logits cannot be averaged."
        hint = "Train with score_features logits and prototypes ema."
        raise ForgettableSegError(ErrorCode.RUN_MISMATCH, msg, hint=hint)
    axes = tuple(own.mirror_axes for own in arguments)
    combined = dataclasses.replace(arguments[0], mirror_axes=(), members=axes)
    split = first.split if same_split else Split(tuple(sorted(case.case_id for case in first.cases)), (), ())
    config = dataclasses.replace(first, network=combined.to_dict(), split=split)
    validation = CaseCache(cache).prepare(config.select(config.split.validation), config.task, config.preprocessing)
    return TrainingOutcome(
        config=config,
        folder=output,
        network=Ensemble([package.network() for package in packages]).eval(),
        prototypes=_mean_prototypes(packages),
        validation_cases=validation,
        validation_dice=None,
        best_iteration=max(package.card["provenance"]["best_iteration"] for package in packages),
        iterations=sum(package.card["provenance"]["iterations"] for package in packages),
        seconds=0.0,
        peak_memory_bytes=peak_memory(),
    )


def _mean_prototypes(packages: Sequence[ModelPackage]) -> dict[str, torch.Tensor]:
    """Means and variances averaged; a class counts as often as the member that saw it least."""
    found = [package.prototypes or {} for package in packages]
    if not all(found):
        return {}  # trained without scoring, all of them
    return {
        "mean": torch.stack([each["mean"] for each in found]).mean(0),
        "variance": torch.stack([each["variance"] for each in found]).mean(0),
        "count": torch.stack([each["count"] for each in found]).amin(0),
    }
