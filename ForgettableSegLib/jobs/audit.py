"""The job `audit`: where labelled cases are hard for a model, or labelled doubtfully (T1 to T4 and their sum)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ForgettableSegLib.jobs.casewise import CaseJob, CaseOutcome, Progress, Rows
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import AuditRequest

if TYPE_CHECKING:
    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.inference.predictor import Predictor

KINDS = ("T1", "T2", "T3", "T4", "score", "review")


def run(request: AuditRequest, context: JobContext) -> JobResult:
    """Score the reference segmentation of every case.

    Raises:
        ForgettableSegError: if no case can be scored at all.
        Cancelled: what is complete stays.
    """
    job = CaseJob(
        phase="audit",
        verb="Audited",
        kinds=KINDS,
        table_kind="table",
        compute=_audit,
        reads_labels=True,
        headlines=_hardest_first,
    )
    return job.run(request, request.cases, context)


def _audit(predictor: Predictor, case: Case, progress: Progress) -> CaseOutcome:
    found = predictor.audit_case(case, progress=progress)
    return CaseOutcome(
        volumes=found.scores,
        geometry=found.geometry,
        review=found.review,
        notes=found.notes,
        seconds=found.seconds,
        cells=found.review["case_difficulty"],
    )


def _hardest_first(rows: Rows) -> list[str]:
    ordered = sorted(rows, key=lambda row: -row["difficulty"])
    return [f"{row['case']}: score {row['difficulty']:.3f}, percentile {row['percentile']:.0f}" for row in ordered]
