"""Jobs that a script waits for, without Qt: the same worker, over plain pipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.client import SubprocessTransport, WorkerClient, worker_command

from .job_state import JobState

Event = dict[str, Any]
_WAIT_S = 0.2


def runJob(
    job: str,
    arguments: Mapping[str, Any],
    *,
    python: str,
    environment: Mapping[str, str] | None = None,
    onEvent: Callable[[Event], None] | None = None,
) -> JobState:
    """Run one job to its end and return what it left.

    Args:
        job: kind of job.
        arguments: its arguments.
        python: interpreter of the worker.
        environment: variables to set for it.
        onEvent: hears every event.

    Raises:
        ForgettableSegError: if the job fails, with its sentence.
        Cancelled: if it was cancelled.
    """
    state = JobState(job)

    def heard(event: Event) -> None:
        state.hear(event)
        if onEvent is not None:
            onEvent(event)

    transport = SubprocessTransport(worker_command(python), environment=environment)
    client = WorkerClient(transport)
    try:
        client.submit(job, arguments, heard)
        while client.is_busy():
            transport.pump(_WAIT_S)
            client.tick()
    finally:
        client.shutdown()
    if state.outcome == "cancelled":
        raise Cancelled
    if state.outcome == "failed":
        raise ForgettableSegError(ErrorCode.INTERNAL, state.message)
    return state
