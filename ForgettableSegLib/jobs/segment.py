"""The job `segment`: label maps, maps of estimated difficulty, reviews and volumes of cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.jobs.inputs import load_cases, load_predictor, rank_device
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.outputs import (
    CaseFolder,
    failed_ids,
    for_each_case,
    gather,
    open_output,
    to_json,
    write_table,
    write_text,
)
from ForgettableSegLib.jobs.protocol import EXIT_DONE, EXIT_SOME_CASES_FAILED
from ForgettableSegLib.jobs.requests import SegmentRequest

if TYPE_CHECKING:
    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.inference.predictor import Predictor

KINDS = ("segmentation", "confidence", "prototype_ratio", "probabilities", "review")

PHASES = {"prepare": (0.0, 0.05), "predict": (0.05, 0.8), "restore": (0.8, 0.9), "review": (0.9, 0.95)}
"""Share of a case's work at which each phase of the predictor begins and ends."""


def run(request: SegmentRequest, context: JobContext) -> JobResult:
    """Segment the cases one after the other; under torchrun each rank takes its share.

    Raises:
        ForgettableSegError: if nothing can be segmented at all.
        Cancelled: what is complete stays.
    """
    from ForgettableSegLib.training.distributed import process_group

    cases = load_cases(request.input if request.cases is None else request.cases).cases
    with process_group() as group:
        context.quiet = not group.is_main
        predictor = load_predictor(request.model, str(rank_device(request.device, group)))
        output = open_output(request.output, cases, context)

        def one(case: Case, tell: Callable[[float], None]) -> dict[str, Any]:
            return _segment(predictor, case, request, output, context, tell)

        rows = gather(for_each_case(context, cases, one, phase="segment", group=group), output, group)
    return _finish(rows, output, predictor.model.name, context) if rows else JobResult()


def _segment(
    predictor: Predictor,
    case: Case,
    request: SegmentRequest,
    output: Path,
    context: JobContext,
    tell: Callable[[float], None],
) -> dict[str, Any]:
    from ForgettableSegLib.cases.validation import series_warnings

    for finding in series_warnings(case):
        context.warning(finding.message, case=case.case_id)
    found = predictor.segment_case(
        case,
        heatmap=request.heatmap,
        probabilities=request.probabilities,
        region=request.region,
        progress=share_teller(tell),
    )
    for note in found.notes:
        context.warning(note, case=case.case_id)
    volumes = {"segmentation": found.labels, **found.difficulty}
    if found.probabilities is not None:
        volumes["probabilities"] = found.probabilities
    folder = CaseFolder(output, case, file_format=request.file_format, kinds=KINDS)
    tell(PHASES["review"][1])
    for kind, path in folder.write(volumes, found.geometry, found.review).items():
        context.artifact(kind, path, case=case.case_id)
    whole = (found.review or {}).get("case_difficulty", {})
    return {
        **{name: whole.get(name) for name in ("difficulty", "percentile", "above_95")},
        "seconds": round(sum(found.seconds.values()), 2),
        **{f"{name} ml": round(volume, 4) for name, volume in found.volumes_ml.items()},
    }


def share_teller(tell: Callable[[float], None]) -> Callable[[str, int, int], None]:
    """Return what the predictor calls with its phases, and `tell` hears as the done share of the case."""

    def progress(phase: str, step: int, of: int) -> None:
        begin, end = PHASES.get(phase, (0.0, 0.0))
        tell(begin + (end - begin) * step / of)

    return progress


def _finish(rows: list[dict[str, Any]], output: Path, model: str, context: JobContext) -> JobResult:
    failed = failed_ids(rows)
    table = write_table(output / "summary.csv", rows)
    content = write_text(output / "summary.json", to_json({"schema": 1, "model": model, "cases": rows}))
    for path in (table, content):
        context.artifact("volumes", path)
    text = f"Segmented {len(rows) - len(failed)} of {len(rows)} cases with {model}; results are in {output}."
    if failed:
        text += f"\nFailed: {', '.join(failed)}."
    result = {"output": str(output), "summary": str(content), "cases": len(rows), "failed": failed}
    return JobResult(EXIT_SOME_CASES_FAILED if failed else EXIT_DONE, result, text)
