"""The job `train`: train a model from scratch."""

from __future__ import annotations

from ForgettableSegLib.jobs import folds, training
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import TrainRequest


def run(request: TrainRequest, context: JobContext) -> JobResult:
    """Train once, or once a fold; see `training.train` and `folds.train_folds`."""
    if request.folds is not None:
        return folds.train_folds(request, context)
    return training.train(request, context)
