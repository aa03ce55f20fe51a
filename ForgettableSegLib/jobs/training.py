"""What the jobs `train`, `finetune` and `resume` share: a run, and a model package with its measures at its end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.classes import classes_to_train, shared_values
from ForgettableSegLib.jobs.comparison import before_and_after, comparison_lines
from ForgettableSegLib.jobs.evaluate import mean_dice
from ForgettableSegLib.jobs.inputs import forget_predictors, load_cases, load_task, rank_device, require_task
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.names import checked_name, private_words, refuse_telling_name
from ForgettableSegLib.jobs.outputs import to_json, write_text
from ForgettableSegLib.jobs.quarantine import without_quarantined
from ForgettableSegLib.jobs.requests import FinetuneRequest, ResumeRequest, TrainingRequest

if TYPE_CHECKING:
    import torch

    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.cases.preprocessing import Preprocessing
    from ForgettableSegLib.cases.split import Split
    from ForgettableSegLib.cases.task import Task
    from ForgettableSegLib.evaluation.metrics import ClassResult
    from ForgettableSegLib.inference.predictor import Predictor
    from ForgettableSegLib.models.package import ModelPackage
    from ForgettableSegLib.training.config import RunConfig
    from ForgettableSegLib.training.distributed import ProcessGroup
    from ForgettableSegLib.training.run import TrainingOutcome
    from ForgettableSegLib.training.settings import TrainingSettings

HELD_OUT_FILE = "held_out.json"
"""What the exported model scored on each held-out case, kept in the run folder."""

BEFORE_FILE = "held_out_before.json"
"""What the model to start from scored on each held-out case, kept in the run folder for a resumed run."""

LITTLE_DICE = 0.1
"""A model that validates below this is exported with a warning."""


def train(
    request: TrainingRequest,
    context: JobContext,
    *,
    split: Split | None = None,
    preprocessing: Preprocessing | None = None,
) -> JobResult:
    """Run a training, from scratch or from a model.

    Args:
        request: what to train.
        context: of the job.
        split, preprocessing: see `run_training`.

    Raises:
        ForgettableSegError: with a sentence for the user.
        Cancelled: the run can be resumed.
    """
    from ForgettableSegLib.training.settings import TrainingSettings, check_names

    check_names(request.settings)  # a slip of the finger is told before torch is loaded

    from ForgettableSegLib.cases.split import split_cases
    from ForgettableSegLib.training.config import refuse_used
    from ForgettableSegLib.training.distributed import process_group
    from ForgettableSegLib.training.run import run_training
    from ForgettableSegLib.training.synthetic_cases import as_label_maps, with_synthetic_images

    started = time.monotonic()
    start = _start_model(request)
    kept = {} if start is None else {"spatial_dims": start.preprocessing.spatial_dims}
    settings = TrainingSettings.from_dict({**kept, **request.settings})
    folder = Path(request.run).absolute()
    name = checked_name(request.name or folder.name)
    task = load_task(request.task)
    cases = load_cases(request.cases, task)
    if settings.synthesis is not None:
        cases = as_label_maps(cases)
    if start is not None:
        cases = classes_to_train(cases, start.task, context, is_given=request.task is not None)
    task = require_task(cases.task or task, cases.source if isinstance(request.cases, str) else "The request")
    cases, quarantined = without_quarantined(cases, request, context)
    refuse_telling_name(name, cases.cases)
    refuse_used(folder)
    forget_predictors()
    with process_group() as group:
        context.quiet = not group.is_main
        device = rank_device(settings.device, group)
        if group.is_main:
            (folder / BEFORE_FILE).unlink(missing_ok=True)  # of a start that did not get far
        labelled = [case for case in cases if case.label is not None]
        if labelled:
            split = split or split_cases(labelled, ratios=settings.split_ratios, seed=settings.seed)
        if start is not None and split is not None and group.is_main:
            made = with_synthetic_images(cases, task, settings.synthesis, split, folder)
            kept_out, _ = _kept_out([case for case in made if case.label is not None], split)
            _judge_before(start, task, kept_out, folder, device, context)
        context.log_to(folder)
        if split is not None:
            _expect(split, _mirror_axes(settings, task, start), context)
        outcome = run_training(
            cases=cases,
            task=task,
            folder=folder,
            name=name,
            settings=settings,
            device=device,
            listener=context,
            start=start,
            split=split,
            group=group,
            started=started,
            preprocessing=preprocessing,
            quarantined=quarantined,
        )
        return finish(outcome, device, group, context)


def resume(request: ResumeRequest, context: JobContext) -> JobResult:
    """Go on with a run.

    Raises:
        ForgettableSegError: with a sentence for the user.
        Cancelled: the run can be resumed again.
    """
    from ForgettableSegLib.training.config import RunConfig
    from ForgettableSegLib.training.distributed import process_group
    from ForgettableSegLib.training.run import resume_training

    folder = Path(request.run).absolute()
    config = RunConfig.read(folder)
    settings = config.settings
    forget_predictors()
    with process_group() as group:
        context.quiet = not group.is_main
        context.log_to(folder)
        device = rank_device(settings.device, group)
        _expect(config.split, config.network["mirror_axes"], context)
        outcome = resume_training(folder=folder, device=device, listener=context, group=group)
        return finish(outcome, device, group, context)


def _mirror_axes(settings: TrainingSettings, task: Task, start: ModelPackage | None) -> Sequence[int]:
    from ForgettableSegLib.training.planning import planned_mirror_axes

    if start is not None:
        return start.card["network"].get("mirror_axes", ())
    return planned_mirror_axes(task, 2) if settings.mirror_axes is None else settings.mirror_axes


def _expect(split: Split, mirror_axes: Sequence[int], context: JobContext) -> None:
    """Tell what comes after the training, in cases validated: these average over all mirror images."""
    images = 2 ** len(mirror_axes)
    judged = len(split.test or split.validation)
    phases = [("train", 0), ("calibrate", images * len(split.validation)), ("evaluate the model", images * judged)]
    context.expect(phases, like="validate the model")


def _start_model(request: TrainingRequest) -> ModelPackage | None:
    if not isinstance(request, FinetuneRequest):
        return None
    from ForgettableSegLib.models.package import ModelPackage
    from ForgettableSegLib.models.registry import find_model

    return ModelPackage.read(find_model(request.model))


def _kept_out(cases: Sequence[Case], split: Any) -> tuple[list[Case], bool]:
    """The cases to judge a model on, and whether they are really held out.

    With too few cases for a held-out part, the validation cases stand in, which chose the best model.
    """
    ids = set(split.test or split.validation)
    return [case for case in cases if case.case_id in ids], bool(split.test)


def _judge_before(
    start: ModelPackage, task: Any, cases: list[Case], folder: Path, device: torch.device, context: JobContext
) -> None:
    from ForgettableSegLib.inference.predictor import Predictor

    if not shared_values(start.task, task) or not cases:
        return  # it can segment none of these classes
    results = judge(Predictor(start, device), task, cases, "evaluate the model before", context, tell_failures=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The run folder {folder} cannot be written: {error.strerror or error}."
        raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, message, hint="Choose another folder.") from error
    write_text(folder / BEFORE_FILE, to_json([result.to_dict() for result in results]))


def judge(
    predictor: Predictor, task: Any, cases: list[Case], phase: str, context: JobContext, *, tell_failures: bool
) -> list[ClassResult]:
    """Segment cases and compare with their labels; one that cannot be used is left out.

    Args:
        predictor: of the model to judge.
        task: what the labels hold; the classes that the model does not segment are left out.
        cases: with labels.
        phase: word for what is done.
        context: is told how far it has come.
        tell_failures: whether it is told of cases that cannot be used, too.
    """
    from ForgettableSegLib.cases.label_files import read_label
    from ForgettableSegLib.cases.labels import with_values
    from ForgettableSegLib.evaluation.metrics import evaluate_case

    values = shared_values(predictor.model.task, task)
    classes = [(each.name, each.value) for each in task.classes if each.value in values.values()]
    results: list[ClassResult] = []
    for index, case in enumerate(cases):
        context.check_cancelled()
        context.progress(phase, index, len(cases), case=case.case_id)
        try:
            found = predictor.segment_case(
                case, heatmap=False, anyway=not predictor.has_locator, cancelled=lambda: context.is_cancelled
            )
            reference = read_label(case, task, geometry=found.geometry)
        except ForgettableSegError as error:
            if tell_failures:
                context.case_failed(case.case_id, error)
            continue
        labels = with_values(found.labels_as_learnt(predictor.model.task), values)
        results += evaluate_case(
            labels, reference, spacing=found.geometry.spacing[::-1], classes=classes, case=case.case_id
        )
    context.progress(phase, len(cases), len(cases))
    return results


def finish(outcome: TrainingOutcome, device: torch.device, group: ProcessGroup, context: JobContext) -> JobResult:
    """Calibrate, judge and export what a run has made; only the rank that speaks for the job does."""
    from ForgettableSegLib.training.export import model_package

    if not group.is_main:
        group.wait()
        return JobResult()
    from ForgettableSegLib.inference.predictor import Predictor

    config = outcome.config
    calibration = _calibration(outcome, device, context)
    learnt = looks(outcome, context)
    package = model_package(outcome, device=device, calibration=calibration, card=learnt)
    learnt |= _pieces(Predictor(package, device), config, context, learnt.get("field_of_view", {}))
    package = package.with_parts(learnt)
    cases, is_held_out = _kept_out(config.cases, config.split)
    measures: dict[str, Any] = {}
    results: list[ClassResult] = []
    if cases:
        results = judge(
            Predictor(package, device), config.task, cases, "evaluate the model", context, tell_failures=True
        )
        measures = card_measures(results, len(cases)) if results else {}
        if measures and is_held_out:
            package = model_package(outcome, device=device, calibration=calibration, held_out=measures, card=learnt)
    target = package.write(outcome.folder / "model", replace=True, private=private_words(config))
    write_text(outcome.folder / HELD_OUT_FILE, to_json([result.to_dict() for result in results]))
    context.artifact("model", target)
    held_out = _comparison(outcome, results, context)
    group.wait()
    if outcome.kept_start:
        context.warning(
            f"No iteration validated better than {config.start['name']}, the model to start from (mean Dice "
            f"{outcome.validation_dice:.3f}), so the exported model has its weights, unchanged."
        )
    if outcome.validation_dice is not None and outcome.validation_dice < LITTLE_DICE:
        context.warning(
            f"This model has learnt next to nothing: its mean Dice on the validation cases is "
            f"{outcome.validation_dice:.3f} after {outcome.iterations} iterations. Train longer before you use it."
        )
    if not is_held_out and measures:
        context.warning(
            "There were too few cases to hold some out; Dice is that of the validation cases, which chose the model."
        )
    result = {
        "run": str(outcome.folder),
        "model": str(target),
        "name": config.name,
        "held_out": held_out,
        "held_out_cases": len(cases) if is_held_out else 0,
        "kept_start": outcome.kept_start,
        "iterations": outcome.iterations,
        "seconds": round(outcome.seconds, 1),
    }
    return JobResult(context.exit_code(), result, _as_text(result))


def looks(outcome: TrainingOutcome, context: JobContext) -> dict[str, Any]:
    """What the training cases looked like, for the card."""
    from ForgettableSegLib.cases.shape import measure_cases

    config = outcome.config
    context.check_cancelled()
    measures = measure_cases(config.select(config.split.train), config.task)
    return {"field_of_view": measures} if measures else {}


def _pieces(
    predictor: Predictor, config: RunConfig, context: JobContext, field_of_view: Mapping[str, Any]
) -> dict[str, Any]:
    """The classes of which only the largest piece is to be kept: that helps on the validation cases.

    Or it does no harm there, and the class lies in one piece in all training cases: what is scattered in a volume that
    is unlike them is none of it.
    """
    from ForgettableSegLib.cases.label_files import read_label
    from ForgettableSegLib.cases.shape import gain_of_largest

    gains: dict[str, list[float]] = {each.name: [] for each in config.task.classes}
    for case in config.select(config.split.validation):
        context.check_cancelled()
        try:
            found = predictor.segment_case(
                case, heatmap=False, anyway=not predictor.has_locator, cancelled=lambda: context.is_cancelled
            )
            reference = read_label(case, config.task, geometry=found.geometry)
        except ForgettableSegError:
            continue  # told of already, where it was prepared
        for each in config.task.classes:
            gains[each.name].append(gain_of_largest(found.labels == each.value, reference == each.value))
    whole = {name for name, shape in field_of_view.get("classes", {}).items() if shape["pieces"][-1] <= 1}
    helped = [name for name, each in gains.items() if sum(each) > 0 or (each and sum(each) == 0 and name in whole)]
    return {"keep_largest": helped} if helped else {}


def _calibration(outcome: TrainingOutcome, device: torch.device, context: JobContext) -> dict[str, Any]:
    from ForgettableSegLib.inference.calibration import calibrate
    from ForgettableSegLib.inference.scoring import feature_kind
    from ForgettableSegLib.mining.prototypes import Prototypes

    config = outcome.config
    if not outcome.validation_cases:
        context.warning("There were no validation cases, so the model's maps of difficulty are not calibrated.")
        return {}

    def on_case(done: int, of: int) -> None:
        context.check_cancelled()
        context.progress("calibrate", done, of)

    classes = config.task.num_classes
    has_prototypes = config.settings.pbs
    prototypes = Prototypes.from_tensors(**outcome.prototypes) if has_prototypes else Prototypes(classes, classes)
    return calibrate(
        outcome.network.to(device),
        prototypes.to(device),
        outcome.validation_cases,
        spatial_dims=config.settings.spatial_dims,
        patch_size=config.patch_size,
        device=device,
        features=feature_kind(config.settings.to_dict()),
        on_case=on_case,
    )


def card_measures(results: list[ClassResult], count: int) -> dict[str, Any]:
    """Means and deviations by class, as a model card shows them."""
    from ForgettableSegLib.evaluation.summary import summarise

    rows = summarise(results)
    measures: dict[str, Any] = {"count": count, "dice": mean_dice(results)}
    for metric in ("dice", "sensitivity", "hd95_mm"):
        spreads = {row.name: row.metrics[metric].to_dict() for row in rows}
        if metric != "dice":
            measures[metric] = {name: spread["mean"] for name, spread in spreads.items()}
        measures[f"{metric}_std"] = {name: spread["std"] for name, spread in spreads.items()}
    return measures


def _comparison(outcome: TrainingOutcome, results: list[ClassResult], context: JobContext) -> dict[str, Any]:
    """Dice before and after, told as an event; a class that got worse is warned of."""
    from ForgettableSegLib.evaluation.metrics import ClassResult

    path = outcome.folder / BEFORE_FILE
    start = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else ()
    held_out = before_and_after([ClassResult.from_dict(each) for each in start], results)
    if results:
        context.metric("held_out", outcome.iterations, held_out)
    for name, value in held_out["after"].items():
        earlier = held_out["before"].get(name)
        if earlier is not None and value is not None and value < earlier - 0.01:
            context.warning(f"Dice of {name} fell from {earlier:.3f} to {value:.3f} on the cases kept out.")
    return held_out


def _as_text(result: dict[str, Any]) -> str:
    lines = comparison_lines(result["held_out"])
    lines.append(f"Trained {result['iterations']} iterations; the model is in {result['model']}.")
    if result["kept_start"]:
        lines.append("It is the model to start from, unchanged: no iteration validated better.")
    return "\n".join(lines)
