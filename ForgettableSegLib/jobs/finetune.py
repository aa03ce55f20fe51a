"""The job `finetune`: go on training a model on other cases."""

from __future__ import annotations

from ForgettableSegLib.jobs import training
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import FinetuneRequest


def run(request: FinetuneRequest, context: JobContext) -> JobResult:
    """Fine-tune; see `training.train`."""
    return training.train(request, context)
