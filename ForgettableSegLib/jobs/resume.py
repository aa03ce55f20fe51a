"""The job `resume`: go on with a run that was cancelled or cut off."""

from __future__ import annotations

from ForgettableSegLib.jobs import training
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import ResumeRequest


def run(request: ResumeRequest, context: JobContext) -> JobResult:
    """Resume; see `training.resume`."""
    return training.resume(request, context)
