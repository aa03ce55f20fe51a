"""The job `audit`: where labelled cases are hard for a model, or labelled doubtfully (T1 to T4 and their sum)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ForgettableSegLib.jobs.casewise import CaseJob, CaseOutcome, Progress, Rows
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import AuditRequest

if TYPE_CHECKING:
    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.inference.outcome import Audit
    from ForgettableSegLib.inference.predictor import Predictor

MOST = 0.5
"""A class that the model calls otherwise in more than this share of its voxels is labelled doubtfully."""
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
        cells=_cells(found),
    )


def _cells(found: Audit) -> dict[str, Any]:
    """The case's row: how hard it is, whether its labels are doubtful, and what the model wants instead."""
    whole = found.review["case_difficulty"]
    cells = {
        "difficulty": round(whole["difficulty"], 4),
        "percentile": round(whole["percentile"], 1),
        "verdict": whole["verdict"] or "",
    }
    worst = found.wanted[0] if found.wanted else None
    doubtful = whole["verdict"] in ("hard", "unlike") or (worst is not None and worst.share > MOST)
    cells["labels"] = "doubtful" if doubtful else "not doubtful"
    if worst is not None:
        cells |= {"class": worst.name, "wanted": worst.instead, "share": round(worst.share, 3)}
    return cells


def _hardest_first(rows: Rows) -> list[str]:
    """A line a case: doubtful or not, and which class is wanted instead of which."""
    lines = []
    for row in sorted(rows, key=lambda row: -row["difficulty"]):
        line = f"{row['case']}: {row['labels']} (score {row['difficulty']:.3f}, percentile {row['percentile']:.0f})"
        if row.get("wanted"):
            line += f"; {row['class']}: the model wants {row['wanted']} in {100 * row['share']:.0f} % of its voxels"
        lines.append(line)
    return lines
