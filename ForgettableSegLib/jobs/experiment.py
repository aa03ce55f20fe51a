"""The job `experiment`: train the variants of a plan one after another, judge them on the same cases, and report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.exit_codes import EXIT_DONE, EXIT_SOME_CASES_FAILED
from ForgettableSegLib.jobs.experiment_runs import RunFolder, Study
from ForgettableSegLib.jobs.failures import explain
from ForgettableSegLib.jobs.inputs import forget_predictors, load_cases, load_task, require_task
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.outputs import open_output
from ForgettableSegLib.jobs.requests import ExperimentRequest

if TYPE_CHECKING:
    from ForgettableSegLib.experiments.plans import ExperimentPlan, PlannedRun


def run(request: ExperimentRequest, context: JobContext) -> JobResult:
    """Do this process's share of the plan, and report on all of it that is finished.

    Raises:
        ForgettableSegError: for a plan or cases that cannot be used, or if no run could be finished.
        Cancelled: the same request goes on where it was left.
    """
    study, plan = _study(request, context)
    runs = plan.runs()
    folders = {run: study.folder_of(run) for run in runs}
    mine = _share(request.shard or _rank_as_shard(), runs)
    forget_predictors()
    failed: dict[str, str] = {}
    for index, planned in enumerate(mine):
        context.check_cancelled()
        context.progress("run experiments", index, len(mine))
        if folders[planned].is_done:
            continue
        try:
            study.execute(planned, folders[planned], context, index=index, of=len(mine))
        except ForgettableSegError as error:
            if error.code in (ErrorCode.DISK_FULL, ErrorCode.OUTPUT_UNWRITABLE):
                raise
            if error.code == ErrorCode.RUN_LOCKED:
                context.log(f"Another process is at the run of {planned.label}.")
                continue
            failed[planned.label] = str(error)
            context.write_log(f"The run of {planned.label} failed.", error)
            context.warning(f"The run of {planned.label} failed: {error}")
    context.progress("run experiments", len(mine), len(mine))
    return _report(study, plan, folders, failed, context)


def _study(request: ExperimentRequest, context: JobContext) -> tuple[Study, ExperimentPlan]:
    from ForgettableSegLib.cases.split import split_cases
    from ForgettableSegLib.experiments.plans import load_plan
    from ForgettableSegLib.training.settings import TrainingSettings

    plan = load_plan(request.plan).changed(
        seeds=request.seeds, iterations=request.iterations, variants=request.variants, settings=request.settings
    )
    task = load_task(request.task)
    cases = load_cases(request.cases, task)
    task = require_task(task or cases.task, cases.source if isinstance(request.cases, str) else "The request")
    # All settings are checked before the first run, not when its turn comes after a day.
    settings = {run: TrainingSettings.from_dict(plan.settings_of(run)) for run in plan.runs()}
    first = next(iter(settings.values()))
    labelled = tuple(case for case in cases if case.label is not None)
    split = split_cases(labelled, ratios=first.split_ratios, seed=0)
    if not split.test:
        message = f"{len(labelled)} labelled cases are too few for an experiment: none could be held out."
        raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, message, hint="Give at least six cases.")
    output = open_output(request.output, cases, context)
    return Study(output=output, cases=cases, task=task, split=split, settings=settings, device=_device(request)), plan


def _device(request: ExperimentRequest) -> Any:
    """The device; under torchrun each rank has a GPU of its own."""
    import torch

    from ForgettableSegLib.inference.device import resolve_device

    device = resolve_device(request.device)
    rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda", int(rank)) if rank is not None and device.type == "cuda" else device


def _rank_as_shard() -> str:
    return f"{int(os.environ.get('RANK', 0)) + 1}/{os.environ.get('WORLD_SIZE', 1)}"


def _share(shard: str, runs: list[PlannedRun]) -> list[PlannedRun]:
    """Every n-th run, so that the parts take about as long as each other."""
    part, parts = map(int, shard.split("/"))
    return runs[part - 1 :: parts]


def _report(
    study: Study,
    plan: ExperimentPlan,
    folders: dict[PlannedRun, RunFolder],
    failed: dict[str, str],
    context: JobContext,
) -> JobResult:
    from ForgettableSegLib.experiments.report import write_experiment

    done = [folder.result(planned) for planned, folder in folders.items() if folder.is_done]
    undone = [planned.label for planned, folder in folders.items() if not folder.is_done]
    missing = [label for label in undone if label not in failed]
    if not done:
        reason = next(iter(failed.values()), "They belong to the other parts.")
        raise ForgettableSegError(ErrorCode.INTERNAL, f"No run of the experiment is finished. {reason}")
    details = {
        "cases": {part: len(getattr(study.split, part)) for part in ("train", "validation", "test")},
        "missing": missing,
        "failed": [f"{label} ({reason})" for label, reason in failed.items()],
        "device": ", ".join(dict.fromkeys(run.facts["device"] for run in done)),
        "seconds": round(sum(run.facts["seconds"] for run in done), 1),
    }
    table, files = write_experiment(
        plan, done, study.output / plan.name, details=details, plots=_plots(plan, folders, done, context)
    )
    for path in files:
        context.artifact("report", path)
    result = {
        "output": str(study.output / plan.name),
        "report": str(files[-1]),
        "done": len(done),
        "missing": missing,
        "failed": failed,
    }
    return JobResult(EXIT_SOME_CASES_FAILED if failed else EXIT_DONE, result, f"{table}\nReport: {files[-1]}")


def _plots(
    plan: ExperimentPlan, folders: dict[PlannedRun, RunFolder], done: list[Any], context: JobContext
) -> dict[str, bytes]:
    from ForgettableSegLib.experiments.plots import experiment_plots

    curves = {
        (planned.regime.name, planned.variant.name, planned.seed): folder.curves()
        for planned, folder in folders.items()
        if folder.is_done
    }
    try:
        return experiment_plots(plan, done, curves)
    except ModuleNotFoundError as error:  # hours of training are not lost for want of a plot
        context.warning(f"The report has no plots: {explain(error)}")
        return {}
