"""The job `evaluate`: Dice, sensitivity and surface distances of label maps, or of what a model makes now."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.exit_codes import EXIT_DONE, EXIT_SOME_CASES_FAILED
from ForgettableSegLib.jobs.inputs import labelled_task, load_cases, load_predictor, load_task, rank_device
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.outputs import failed_ids, for_each_case, gather, open_output
from ForgettableSegLib.jobs.requests import EvaluateRequest

if TYPE_CHECKING:
    import numpy as np

    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.evaluation.metrics import ClassResult
    from ForgettableSegLib.training.distributed import ProcessGroup

LabelMap = tuple["np.ndarray", "Any"]


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
        sources, cases, classes = _plan(request, group)
        output = open_output(request.output, cases, context)

        def one(case: Case, tell: Callable[[float], None]) -> dict[str, Any]:
            return {
                name: [result.to_dict() for result in _evaluate(case, predict(case), classes, request)]
                for name, predict in sources.items()
            }

        rows = gather(for_each_case(context, cases, one, phase="evaluate", group=group), output, group)
    if not rows:
        return JobResult()
    results = {name: _results(rows, name) for name in sources}
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


def _plan(
    request: EvaluateRequest, group: ProcessGroup
) -> tuple[dict[str, Callable[[Case], LabelMap]], tuple[Case, ...], list[tuple[str, int]]]:
    """Return where predictions come from (by name of the set), the cases with references, and the classes."""
    from ForgettableSegLib.cases.files import check_label_values, label_path, read_label_map
    from ForgettableSegLib.cases.labels import renumbered

    task = load_task(request.task)
    if request.model is not None:
        predictor = load_predictor(request.model, str(rank_device(request.device, group)))
        listed = load_cases(request.cases, task)
        own = predictor.model.task
        task = labelled_task(own, listed.task)
        if listed.task is None:
            listed = load_cases(request.cases, task)

        def segment(case: Case) -> LabelMap:
            reference, _ = read_label_map(label_path(case))
            check_label_values(reference, task, label_path(case))
            found = predictor.segment_case(case, heatmap=False)
            return renumbered(found.labels, own, task), found.geometry

        return {"predictions": segment}, listed.cases, [(each.name, each.value) for each in task.classes]
    cases, listed = _references(Path(request.references))
    task = task or listed
    sources: dict[str, Callable[[Case], LabelMap]] = {}
    for name, folder in (("predictions", request.predictions), ("compare", request.compare)):
        if folder is not None:
            files = label_maps(Path(folder))
            sources[name] = lambda case, files=files, folder=folder: read_label_map(_found(case, files, folder))
    classes = [(each.name, each.value) for each in task.classes] if task else _classes_present(cases)
    return sources, cases, classes


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
                found[path.name] = inner
    if not found:
        raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, f"The folder {folder} holds no label map.")
    return found


def _references(source: Path) -> tuple[tuple[Case, ...], Any]:
    """Cases with labels: of a case list, or one for each label map of a plain folder."""
    from ForgettableSegLib.cases.case import Case

    is_plain = source.is_dir() and not any((source / name).exists() for name in ("dataset.json", "labelsTr", "labels"))
    if not is_plain:
        cases = load_cases(str(source))
        return tuple(case for case in cases if case.label is not None), cases.task
    return tuple(Case(name, name, (path,), path) for name, path in label_maps(source).items()), None


def _found(case: Case, files: dict[str, Path], folder: str) -> Path:
    if case.case_id not in files:
        message = f"There is no label map of case '{case.case_id}' in {folder}."
        raise ForgettableSegError(ErrorCode.FILE_MISSING, message)
    return files[case.case_id]


def _classes_present(cases: tuple[Case, ...]) -> list[tuple[str, int]]:
    """Without a task, the classes are the values that the references hold."""
    from ForgettableSegLib.cases.files import read_label_map
    from ForgettableSegLib.cases.labels import values_present

    values: set[int] = set()
    for case in cases:
        try:
            values |= set(values_present(read_label_map(case.label)[0]))
        except ForgettableSegError:
            continue  # told when its turn comes
    return [(f"label {value}", value) for value in sorted(values - {0})]


def _evaluate(
    case: Case, predicted: LabelMap, classes: list[tuple[str, int]], request: EvaluateRequest
) -> list[ClassResult]:
    from ForgettableSegLib.cases.files import check_same_grid, label_path, read_label_map
    from ForgettableSegLib.evaluation.metrics import evaluate_case

    prediction, geometry = predicted
    reference, own = read_label_map(label_path(case))
    check_same_grid(case.label, own, case.images[0], geometry)
    spacing = geometry.spacing[::-1]
    return evaluate_case(
        prediction, reference, spacing=spacing, classes=classes, convention=request.convention, case=case.case_id
    )


def _results(rows: list[dict[str, Any]], name: str) -> list[ClassResult]:
    from ForgettableSegLib.evaluation.metrics import ClassResult

    return [
        ClassResult(**{key: math.nan if value is None else value for key, value in result.items()})
        for row in rows
        for result in row.get(name, ())
    ]
