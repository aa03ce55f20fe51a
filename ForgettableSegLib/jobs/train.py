"""The job `train`: train a model from scratch."""

from __future__ import annotations

from ForgettableSegLib.jobs import training
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import TrainRequest


def run(request: TrainRequest, context: JobContext) -> JobResult:
    """Train; see `training.train`."""
    return training.train(request, context)
