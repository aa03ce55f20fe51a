"""The job `segment`: label maps, maps of estimated difficulty, reviews and volumes of cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ForgettableSegLib.jobs.casewise import CaseJob, CaseOutcome, Progress
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import SegmentRequest

if TYPE_CHECKING:
    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.inference.predictor import Predictor

KINDS = ("segmentation", "confidence", "prototype_ratio", "probabilities", "review")


def run(request: SegmentRequest, context: JobContext) -> JobResult:
    """Segment the cases.

    Raises:
        ForgettableSegError: if nothing can be segmented at all.
        Cancelled: what is complete stays.
    """

    def compute(predictor: Predictor, case: Case, progress: Progress) -> CaseOutcome:
        return _segment(predictor, case, request, progress)

    job = CaseJob(phase="segment", verb="Segmented", kinds=KINDS, table_kind="volumes", compute=compute)
    return job.run(request, request.input if request.cases is None else request.cases, context)


def _segment(predictor: Predictor, case: Case, request: SegmentRequest, progress: Progress) -> CaseOutcome:
    found = predictor.segment_case(
        case,
        heatmap=request.heatmap,
        probabilities=request.probabilities,
        region=request.region,
        progress=progress,
    )
    volumes = {"segmentation": found.labels, **found.difficulty}
    if found.probabilities is not None:
        volumes["probabilities"] = found.probabilities
    whole = (found.review or {}).get("case_difficulty", {})
    difficulty = {name: whole.get(name) for name in ("difficulty", "percentile", "above_95")}
    volumes_ml = {f"{name} ml": round(volume, 4) for name, volume in found.volumes_ml.items()}
    return CaseOutcome(
        volumes=volumes,
        geometry=found.geometry,
        review=found.review,
        notes=found.notes,
        seconds=found.seconds,
        cells={**difficulty, **volumes_ml},
    )
