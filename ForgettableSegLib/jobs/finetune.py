"""The job `finetune`: go on training a model on other cases."""

from __future__ import annotations

from . import training
from .job import JobContext, JobResult
from .requests import FinetuneRequest


def run(request: FinetuneRequest, context: JobContext) -> JobResult:
    """Fine-tune; see `training.train`."""
    return training.train(request, context)
