"""The job `train`: train a model from scratch."""

from __future__ import annotations

from . import training
from .job import JobContext, JobResult
from .requests import TrainRequest


def run(request: TrainRequest, context: JobContext) -> JobResult:
    """Train; see `training.train`."""
    return training.train(request, context)
