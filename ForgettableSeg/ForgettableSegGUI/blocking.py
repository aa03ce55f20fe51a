"""Jobs that a script waits for, without Qt: the same worker, over plain pipes, kept warm between the calls."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping
from typing import Any

from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.worker.client import SubprocessTransport, WorkerClient, worker_command

from .job_state import JobState

Event = dict[str, Any]
_WAIT_S = 0.2


class BlockingWorker:
    """One worker that is waited for.

    Args:
        python: interpreter of the worker.
        environment: variables to set for it.
    """

    def __init__(self, python: str, environment: Mapping[str, str] | None = None) -> None:
        self._transport = SubprocessTransport(worker_command(python), environment=environment)
        self._client = WorkerClient(self._transport)

    def run(self, job: str, arguments: Mapping[str, Any], onEvent: Callable[[Event], None] | None = None) -> JobState:
        """Run one job to its end and return what it left.

        Args:
            job: kind of job.
            arguments: its arguments.
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

        self._client.submit(job, arguments, heard)
        while self._client.is_busy():
            self._transport.pump(_WAIT_S)
            self._client.tick()
        if state.outcome == "cancelled":
            raise Cancelled
        if state.outcome == "failed":
            raise ForgettableSegError(ErrorCode.INTERNAL, state.message)
        return state

    def shutdown(self) -> None:
        """End the worker."""
        self._client.shutdown(timeout_s=1.0)


_shared: BlockingWorker | None = None


def sharedBlockingWorker(python: Callable[[], str], environment: Callable[[], Mapping[str, str]]) -> BlockingWorker:
    """Return the worker that scripts wait for, made at the first call and ended with the program.

    Args:
        python: gives the interpreter.
        environment: gives the variables to set.
    """
    global _shared
    if _shared is None:
        _shared = BlockingWorker(python(), environment())
        atexit.register(shutdownBlockingWorker)
    return _shared


def shutdownBlockingWorker() -> None:
    """End the worker that scripts wait for, if there is one."""
    global _shared
    if _shared is not None:
        _shared.shutdown()
        _shared = None
