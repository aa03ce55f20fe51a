"""The job `audit`: where labelled cases are hard for a model, or labelled doubtfully (T1 to T4 and their sum)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.jobs.inputs import load_cases, load_predictor
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
from ForgettableSegLib.jobs.requests import AuditRequest
from ForgettableSegLib.jobs.segment import share_teller

if TYPE_CHECKING:
    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.inference.predictor import Predictor

KINDS = ("T1", "T2", "T3", "T4", "score", "review")


def run(request: AuditRequest, context: JobContext) -> JobResult:
    """Score the reference segmentation of every case; under torchrun each rank takes its share.

    Raises:
        ForgettableSegError: if no case can be scored at all.
        Cancelled: what is complete stays.
    """
    from ForgettableSegLib.training.distributed import process_group

    cases = load_cases(request.cases).cases
    predictor = load_predictor(request.model, request.device)
    output = open_output(request.output, cases, context)

    def one(case: Case, tell: Callable[[float], None]) -> dict[str, Any]:
        return _audit(predictor, case, request, output, context, tell)

    with process_group() as group:
        context.quiet = not group.is_main
        rows = gather(for_each_case(context, cases, one, phase="audit", group=group), output, group)
    return _finish(rows, output, predictor.model.name, context) if rows else JobResult()


def _audit(
    predictor: Predictor,
    case: Case,
    request: AuditRequest,
    output: Path,
    context: JobContext,
    tell: Callable[[float], None],
) -> dict[str, Any]:
    found = predictor.audit_case(case, progress=share_teller(tell))
    for note in found.notes:
        context.warning(note, case=case.case_id)
    folder = CaseFolder(output, case, file_format=request.file_format, kinds=KINDS)
    for kind, path in folder.write(found.scores, found.geometry, found.review).items():
        context.artifact(kind, path, case=case.case_id)
    return {**found.review["case_difficulty"], "seconds": round(sum(found.seconds.values()), 2)}


def _finish(rows: list[dict[str, Any]], output: Path, model: str, context: JobContext) -> JobResult:
    failed = failed_ids(rows)
    table = write_table(output / "summary.csv", rows)
    content = write_text(output / "summary.json", to_json({"schema": 1, "model": model, "cases": rows}))
    for path in (table, content):
        context.artifact("table", path)
    hardest = sorted((row for row in rows if row["status"] == "done"), key=lambda row: -row["difficulty"])
    lines = [f"{row['case']}: score {row['difficulty']:.3f}, percentile {row['percentile']:.0f}" for row in hardest]
    text = "\n".join([*lines, f"Audited {len(hardest)} of {len(rows)} cases; results are in {output}."])
    result = {"output": str(output), "summary": str(content), "cases": len(rows), "failed": failed}
    return JobResult(EXIT_SOME_CASES_FAILED if failed else EXIT_DONE, result, text)
