"""The job `resume`: go on with a run that was cancelled or cut off."""

from __future__ import annotations

from . import training
from .job import JobContext, JobResult
from .requests import ResumeRequest


def run(request: ResumeRequest, context: JobContext) -> JobResult:
    """Resume; see `training.resume`."""
    return training.resume(request, context)
