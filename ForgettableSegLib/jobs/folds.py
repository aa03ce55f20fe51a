"""Cross-validation: a training for each fold, which is held out, and the average of their models as one model."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs import training
from ForgettableSegLib.jobs.comparison import before_and_after
from ForgettableSegLib.jobs.experiment_runs import RunListener
from ForgettableSegLib.jobs.inputs import load_cases, load_task, require_task
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.names import private_words
from ForgettableSegLib.jobs.outputs import to_json, write_text
from ForgettableSegLib.jobs.quarantine import without_quarantined
from ForgettableSegLib.jobs.requests import ResumeRequest, TrainRequest

if TYPE_CHECKING:
    from torch import Tensor

    from ForgettableSegLib.cases.preprocessing import Preprocessing
    from ForgettableSegLib.cases.split import Split
    from ForgettableSegLib.evaluation.metrics import ClassResult
    from ForgettableSegLib.models.package import ModelPackage
    from ForgettableSegLib.training.settings import TrainingSettings

FOLDS_FILE = "folds.json"
REPORT_FOLDER = "cross_validation"
# Averaging and writing the models at the end takes the rest of the minutes.
_SHARE_OF_MINUTES = 0.98


def train_folds(request: TrainRequest, context: JobContext) -> JobResult:
    """Train once a fold, or go on with that, and export the average with what each model scored on its own fold.

    Raises:
        ForgettableSegError: with a sentence for the user.
        Cancelled: the same request goes on where it was left.
    """
    from ForgettableSegLib.cases.split import fold_splits
    from ForgettableSegLib.training.distributed import process_group
    from ForgettableSegLib.training.planning import planned_preprocessing
    from ForgettableSegLib.training.settings import TrainingSettings

    with process_group() as group:
        if group.is_distributed:
            message = "Folds are trained by one process, not by several under torchrun."
            raise ForgettableSegError(ErrorCode.REQUEST_INVALID, message, hint="Start the command without torchrun.")
    folder = Path(request.run).absolute()
    settings = TrainingSettings.from_dict(request.settings)
    if settings.has_own_prototypes:
        message = "Models whose scores are not made of logits cannot be averaged."
        hint = "Set score_features to logits and prototypes to ema."
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, message, hint=hint)
    if settings.synthesis is not None:
        message = "Folds are for cases with images of their own, not for synthetic ones."
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, message, hint="Leave synthesis or the folds out.")
    task = load_task(request.task)
    cases = load_cases(request.cases, task)
    task = require_task(cases.task or task, cases.source if isinstance(request.cases, str) else "The request")
    cases, _ = without_quarantined(cases, request, context)
    labelled = [case for case in cases if case.label is not None]
    splits = fold_splits(labelled, request.folds, ratios=settings.split_ratios, seed=settings.seed)
    _claim(folder, request, splits)
    context.log_to(folder)
    if settings.minutes is not None:
        settings = replace(settings, minutes=_SHARE_OF_MINUTES * settings.minutes / len(splits))
    folders = [folder / f"fold{number}" for number in range(1, len(splits) + 1)]
    # One for all folds, or their models could not be averaged: planned from all cases, as nnU-Net does.
    preprocessing = planned_preprocessing(labelled, task, settings)
    for index, (own, split) in enumerate(zip(folders, splits, strict=True)):
        listener = RunListener(context, f"fold {index + 1}", index=index, of=len(splits), phase="train folds")
        one = replace(request, run=str(own), name=request.name or folder.name, folds=None, settings=settings.to_dict())
        _train_fold(own, one, split, preprocessing, listener)
        if index == 0:
            preprocessing, settings = _as_planned(own, settings)
    context.progress("train folds", len(splits), len(splits))
    return _combine(folder, folders, splits, context)


def _claim(folder: Path, request: TrainRequest, splits: Sequence[Split]) -> None:
    """Keep what decides the folds, and refuse to go on with others."""
    from ForgettableSegLib.training.config import refuse_used

    refuse_used(folder)
    content = {"settings": request.to_dict()["settings"], "splits": [split.to_dict() for split in splits]}
    path = folder / FOLDS_FILE
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != json.loads(to_json(content)):
            message = f"The folds in {folder} were begun with other cases or settings."
            raise ForgettableSegError(ErrorCode.RUN_MISMATCH, message, hint="Give the same ones, or another folder.")
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"The run folder {folder} cannot be written: {error.strerror or error}."
            raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, message, hint="Choose another folder.") from error
        write_text(path, to_json(content))


def _as_planned(folder: Path, settings: TrainingSettings) -> tuple[Preprocessing, TrainingSettings]:
    """What the first fold has planned holds for the others: preparation, patch, and what its settings left open."""
    from ForgettableSegLib.training.config import RunConfig

    config = RunConfig.read(folder)
    return config.preprocessing, replace(config.settings, patch_size=config.patch_size, minutes=settings.minutes)


def _train_fold(
    folder: Path, request: TrainRequest, split: Split, preprocessing: Preprocessing, listener: RunListener
) -> None:
    """Train a fold, go on with it, or leave it as it is where it is finished."""
    if (folder / training.HELD_OUT_FILE).is_file() and (folder / "model" / "model.json").is_file():
        return
    if (folder / "config.json").is_file():
        try:
            training.resume(ResumeRequest(run=str(folder)), listener)
        except ForgettableSegError as error:
            if error.code != ErrorCode.CHECKPOINT_INVALID:
                raise
            listener.log(f"It starts again: {error.message}")
            shutil.rmtree(folder)
        else:
            return
    training.train(request, listener, split=split, preprocessing=preprocessing)


def _combine(folder: Path, folders: Sequence[Path], splits: Sequence[Split], context: JobContext) -> JobResult:
    """Average, report and export."""
    import torch

    from ForgettableSegLib.evaluation.metrics import ClassResult
    from ForgettableSegLib.models.package import ModelPackage
    from ForgettableSegLib.resources import user_cache_dir
    from ForgettableSegLib.training.ensemble import combine_runs
    from ForgettableSegLib.training.export import model_package

    outcome = combine_runs(folders, folder, cache=user_cache_dir() / "cases", same_split=False)
    rows = [json.loads((own / training.HELD_OUT_FILE).read_text(encoding="utf-8")) for own in folders]
    results = [ClassResult.from_dict(row) for fold in rows for row in fold]
    count = len({result.case for result in results})
    measures = {**training.card_measures(results, count), "folds": len(folders)}
    members = [ModelPackage.read(own / "model") for own in folders]
    package = model_package(
        outcome,
        device=torch.device("cuda" if "cuda" in str(outcome.config.settings.device) else "cpu"),
        calibration=_mean_calibration(members),
        held_out=measures,
        card=training.looks(outcome, context) | _pieces(members),
    )
    target = package.write(folder / "model", replace=True, private=private_words(outcome.config))
    context.artifact("model", target)
    fold_of = {case_id: number for number, split in enumerate(splits, 1) for case_id in split.test}
    table = _report(results, fold_of, folder / REPORT_FOLDER, context)
    result = {
        "run": str(folder),
        "model": str(target),
        "name": outcome.config.name,
        "folds": len(folders),
        "held_out": before_and_after((), results),
        "held_out_cases": count,
    }
    text = f"{table}\nEach case was held out by the model of its fold; the average of all is in {target}."
    return JobResult(context.exit_code(), result, text)


def _pieces(members: Sequence[ModelPackage]) -> dict[str, Any]:
    """The classes of which every member keeps the largest piece only."""
    first, *others = (member.card.get("keep_largest", []) for member in members)
    kept = [name for name in first if all(name in other for other in others)]
    return {"keep_largest": kept} if kept else {}


def _mean_calibration(members: Sequence[ModelPackage]) -> dict[str, Tensor]:
    """The histograms of the members, averaged; none unless all have the same."""
    import torch

    names = set.intersection(*(set(member.calibration) for member in members))
    return {name: torch.stack([member.calibration[name] for member in members]).mean(0) for name in sorted(names)}


def _report(results: Sequence[ClassResult], fold_of: Mapping[str, int], folder: Path, context: JobContext) -> str:
    """Write the cross-validated tables; returns that of the classes and that of the cases as text."""
    from ForgettableSegLib.evaluation.report import write_report

    report = write_report(results, folder, details={"folds": dict(fold_of)})
    names = list(dict.fromkeys(result.name for result in results))
    dice = {(result.case, result.name): result.dice for result in results}
    order = sorted({result.case for result in results}, key=lambda case: (fold_of[case], case))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["fold", "case", *names])
    lines = []
    for case in order:
        values = [dice.get((case, name), float("nan")) for name in names]
        cells = ["" if value != value else f"{value:.4f}" for value in values]
        writer.writerow([fold_of[case], case, *cells])
        told = ", ".join(f"{name} {cell[:5] or 'not defined'}" for name, cell in zip(names, cells, strict=True))
        lines.append(f"Fold {fold_of[case]}, {case}: Dice {told}")
    path = folder / "folds.csv"
    write_text(path, stream.getvalue())
    for each in (*report.files, path):
        context.artifact("report", each)
    return "\n".join([*lines, "", report.table])
