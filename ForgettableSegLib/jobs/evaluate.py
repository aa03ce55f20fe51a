"""The job `evaluate`: Dice, sensitivity and surface distances of label maps, or of what a model makes now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.classes import labels_of_model, shared_values, sided_task, values_in
from ForgettableSegLib.jobs.exit_codes import EXIT_DONE, EXIT_SOME_CASES_FAILED
from ForgettableSegLib.jobs.inputs import load_cases, load_predictor, load_task, rank_device
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.outputs import failed_ids, for_each_case, gather, open_output
from ForgettableSegLib.jobs.requests import EvaluateRequest

if TYPE_CHECKING:
    import numpy as np

    from ForgettableSegLib.cases.case import Case, CaseList
    from ForgettableSegLib.cases.task import Task
    from ForgettableSegLib.evaluation.metrics import ClassResult
    from ForgettableSegLib.training.distributed import ProcessGroup

LabelMap = tuple["np.ndarray", "Any"]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Where label maps come from (by name of the set), the cases with references, and the classes.

    Args:
        sources: give the label map of a case.
        cases: with references.
        classes: name and value of each class that is evaluated.
        task: whose values the references hold once read, None where nobody knows.
    """

    sources: dict[str, Callable[[Case], LabelMap]]
    cases: tuple[Case, ...]
    classes: list[tuple[str, int]]
    task: Task | None


def run(request: EvaluateRequest, context: JobContext) -> JobResult:
    """Evaluate all cases, and compare with a second set of label maps if there is one.

    Raises:
        ForgettableSegError: if nothing can be evaluated at all.
        Cancelled: at the next case; an earlier report stays.
    """
    from ForgettableSegLib.evaluation.report import write_report
    from ForgettableSegLib.evaluation.statistics import compare_results
    from ForgettableSegLib.training.distributed import process_group

    with process_group() as group:
        context.quiet = not group.is_main
        plan = _plan(request, group, context)
        cases = plan.cases
        output = open_output(request.output, cases, context)

        def one(case: Case, tell: Callable[[float], None]) -> dict[str, Any]:
            return {
                name: [result.to_dict() for result in _evaluate(case, predict(case), plan, request)]
                for name, predict in plan.sources.items()
            }

        rows = gather(for_each_case(context, cases, one, phase="evaluate", group=group), output, group)
    if not rows:
        return JobResult()
    results = {name: _results(rows, name) for name in plan.sources}
    failed = failed_ids(rows)
    if not results["predictions"]:
        raise ForgettableSegError(
            ErrorCode.CASE_INVALID, "None of the cases could be evaluated; see the messages above."
        )
    comparison = compare_results(results["predictions"], results["compare"]) if "compare" in results else ()
    report = write_report(
        results["predictions"],
        output,
        convention=request.convention,
        comparison=comparison,
        details={"failed": failed, "model": request.model},
    )
    for path in report.files:
        context.artifact("report", path)
    result = {"output": str(output), "cases": len(rows), "failed": failed, "dice": mean_dice(results["predictions"])}
    return JobResult(EXIT_SOME_CASES_FAILED if failed else EXIT_DONE, result, report.table)


def mean_dice(results: list[ClassResult]) -> dict[str, float | None]:
    """Return the mean Dice of each class, and of the classes under "mean"."""
    from ForgettableSegLib.evaluation.summary import MEAN_OF_CLASSES, summarise

    dice = {row.name: row.metrics["dice"].to_dict()["mean"] for row in summarise(results)}
    if len(dice) == 1:
        dice[MEAN_OF_CLASSES] = next(iter(dice.values()))
    return {name: dice[name] for name in sorted(dice, key=lambda name: name != MEAN_OF_CLASSES)}


def _plan(request: EvaluateRequest, group: ProcessGroup, context: JobContext) -> _Plan:
    from ForgettableSegLib.cases.label_files import read_label_map
    from ForgettableSegLib.cases.labels import with_values

    task = load_task(request.task)
    if request.model is not None:
        return _plan_of_model(request, task, group, context)
    cases = _references(Path(request.references))
    folders = {"predictions": request.predictions, "compare": request.compare}
    files = {name: label_maps(Path(folder)) for name, folder in folders.items() if folder is not None}
    sided = next((own for path in files["predictions"].values() if (own := sided_task(path))), None)
    if task is not None and sided is not None and _holds_sides(cases, task, sided):
        task = sided
    if task is not None and cases.task is not None:
        cases = labels_of_model(cases, task, context)
    task = cases.task or task

    def read(case: Case, name: str) -> LabelMap:
        path = _found(case, files[name], folders[name])
        labels, geometry = read_label_map(path)
        own = sided_task(path)
        return (labels if own is None or task is None else with_values(labels, values_in(own, task))), geometry

    sources = {name: partial(read, name=name) for name in files}
    classes = [(each.name, each.value) for each in task.classes] if task else _classes_present(cases.cases)
    return _Plan(sources=sources, cases=cases.cases, classes=classes, task=task)


def _plan_of_model(request: EvaluateRequest, task: Task | None, group: ProcessGroup, context: JobContext) -> _Plan:
    from ForgettableSegLib.cases.label_files import read_label
    from ForgettableSegLib.cases.labels import with_values

    predictor = load_predictor(request.model, str(rank_device(request.device, group)))
    own = predictor.model.task
    listed = load_cases(request.cases, task)
    if listed.task is None:  # only the model knows how many channels a case has
        listed = load_cases(request.cases, own)
    listed = labels_of_model(listed, own, context)
    values = shared_values(own, listed.task)

    def segment(case: Case) -> LabelMap:
        read_label(case, own)  # a bad label is told before time is spent
        found = predictor.segment_case(case, heatmap=False, anyway=not predictor.has_locator)
        return with_values(found.labels_as_learnt(predictor.model.task), values), found.geometry

    classes = [(each.name, each.value) for each in listed.task.classes]
    return _Plan(sources={"predictions": segment}, cases=listed.cases, classes=classes, task=own)


def label_maps(folder: Path) -> dict[str, Path]:
    """Return the label maps of a folder by case id: files of that name, or what the job `segment` has written there.

    Raises:
        ForgettableSegError: FILE_MISSING if there is no such folder, CASE_LIST_INVALID if it holds none.
    """
    from ForgettableSegLib.cases.files import stem_of, suffix_of

    if not folder.is_dir():
        raise ForgettableSegError(ErrorCode.FILE_MISSING, f"The folder {folder} does not exist.")
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and suffix_of(path) and not path.name.startswith("."):
            found[stem_of(path).removesuffix("_segmentation")] = path
        elif path.is_dir():
            for inner in sorted(path.glob("*_segmentation.*")):
                found[stem_of(inner).removesuffix("_segmentation")] = inner
    if not found:
        raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, f"The folder {folder} holds no label map.")
    return found


def _holds_sides(cases: CaseList, task: Task, sided: Task) -> bool:
    """Whether references tell left from right, by their names or, without names, by values that only sides have."""
    from ForgettableSegLib.cases.structures import SIDES, words_of

    if cases.task is not None:
        return any(SIDES.intersection(words_of(each.name)) for each in cases.task.classes)
    values = {value for _, value in _classes_present(cases.cases)}
    return not values <= set(task.label_values) and values <= set(sided.label_values)


def _references(source: Path) -> CaseList:
    """Cases with labels: of a case list, or one for each label map of a plain folder."""
    from ForgettableSegLib.cases.case import Case, CaseList

    is_plain = source.is_dir() and not any((source / name).exists() for name in ("dataset.json", "labelsTr", "labels"))
    if not is_plain:
        cases = load_cases(str(source))
        return replace(cases, cases=tuple(case for case in cases if case.label is not None))
    return CaseList(tuple(Case(name, name, (path,), path) for name, path in label_maps(source).items()), None, source)


def _found(case: Case, files: dict[str, Path], folder: str) -> Path:
    if case.case_id not in files:
        message = f"There is no label map of case '{case.case_id}' in {folder}."
        raise ForgettableSegError(ErrorCode.FILE_MISSING, message)
    return files[case.case_id]


def _classes_present(cases: tuple[Case, ...]) -> list[tuple[str, int]]:
    """Without a task, the classes are the values that the references hold."""
    from ForgettableSegLib.cases.label_files import read_label_map
    from ForgettableSegLib.cases.labels import values_present

    values: set[int] = set()
    for case in cases:
        try:
            values |= set(values_present(read_label_map(case.label)[0]))
        except ForgettableSegError:
            continue  # told when its turn comes
    return [(f"label {value}", value) for value in sorted(values - {0})]


def _evaluate(case: Case, predicted: LabelMap, plan: _Plan, request: EvaluateRequest) -> list[ClassResult]:
    from ForgettableSegLib.cases.label_files import read_label
    from ForgettableSegLib.evaluation.metrics import evaluate_case

    prediction, geometry = predicted
    reference = read_label(case, geometry=geometry)
    _refuse_foreign(case, reference, plan)
    return evaluate_case(
        prediction,
        reference,
        spacing=geometry.spacing[::-1],
        classes=plan.classes,
        convention=request.convention,
        case=case.case_id,
    )


def _refuse_foreign(case: Case, reference: np.ndarray, plan: _Plan) -> None:
    """Refuse a reference that holds structures, but none of the task: every measure would be zero without a word."""
    from ForgettableSegLib.cases.label_files import check_label_values
    from ForgettableSegLib.cases.labels import values_present

    present = set(values_present(reference)) - {0}
    if plan.task is not None and present and not present & set(plan.task.label_values):
        check_label_values(reference, plan.task, case.label)


def _results(rows: list[dict[str, Any]], name: str) -> list[ClassResult]:
    from ForgettableSegLib.evaluation.metrics import ClassResult

    return [ClassResult.from_dict(result) for row in rows for result in row.get(name, ())]
