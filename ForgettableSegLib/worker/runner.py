"""Runs a request: what the command line and the worker share."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from pathlib import Path

from ForgettableSegLib.errors import Cancelled
from ForgettableSegLib.jobs.exit_codes import EXIT_BAD_REQUEST, EXIT_CANCELLED
from ForgettableSegLib.jobs.failures import explain
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import Request


def run_job(request: Request, context: JobContext) -> JobResult:
    """Run the job that ``request`` asks for, from ``started`` to exactly one of ``done``, ``failed`` and ``cancelled``.

    Args:
        request: a checked request.
        context: receives the events; its log file receives the traceback of whatever went wrong.

    Returns:
        The result; its exit code is that of the command line.
    """
    context.emit({"event": "started", "job": request.job, "pid": os.getpid()})
    try:
        job = importlib.import_module(f"ForgettableSegLib.jobs.{request.job}")
        result = job.run(request, context)
    except (Cancelled, KeyboardInterrupt):
        context.emit({"event": "cancelled", "resumable": _resumable(request)})
        return JobResult(EXIT_CANCELLED)
    except (Exception, SystemExit) as error:  # a library that calls sys.exit must not end the worker
        return fail(context, error)
    finally:
        _free_device_memory()
    context.emit({"event": "done", "exit_code": result.exit_code, "result": dict(result.result), "text": result.text})
    return result


def fail(context: JobContext, error: BaseException) -> JobResult:
    """Send ``failed`` for an error that ends a job, and keep its traceback in the log."""
    context.write_log("The job failed.", error)
    readable = explain(error, log=str(context.log_file))
    context.emit(
        {
            "event": "failed",
            "code": str(readable.code),
            "text": readable.message,
            "hint": readable.hint,
            "log": str(context.log_file),
        }
    )
    return JobResult(EXIT_BAD_REQUEST)


def _resumable(request: Request) -> str | None:
    """Return the run folder of a training that can be taken up again."""
    run = getattr(request, "run", None)
    if run is None:
        return None
    with contextlib.suppress(OSError):
        if any((Path(run) / "checkpoint").iterdir()):
            return str(run)
    return None


def _free_device_memory() -> None:
    """Give the memory of a finished job back to other programs, where torch has been loaded and has any."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
