"""The worker: a process that stays alive between jobs, with torch imported and the model loaded.

It takes one request a line on standard input and answers with events on standard output (see `protocol`). A client
starts it as ``python -m ForgettableSegLib.worker`` or by the path of this file, which needs nothing set up before.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    # Started by its path: the package is found from there, and the files beside this one must not
    # be taken for packages of the same name.
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "ForgettableSegLib.worker"

import argparse
import importlib
import os
import queue
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.exit_codes import EXIT_CANCELLED, EXIT_DONE
from ForgettableSegLib.jobs.job import JobContext
from ForgettableSegLib.jobs.requests import Request, make_request
from ForgettableSegLib.jobs.versions import package_versions
from ForgettableSegLib.threads import prepare_threads
from ForgettableSegLib.worker.protocol import (
    MAX_REQUEST_CHARACTERS,
    WorkerRequest,
    encode_event,
    parse_request,
    request_id,
)
from ForgettableSegLib.worker.runner import run_job
from ForgettableSegLib.worker.streams import EventStream

GRACE_S = 1.5
"""A job has this long to reach a safe point once the client is gone; a run stays resumable from its last checkpoint."""

GRACE_ASKED_S = 10.0
"""The same when the worker was asked to end, by SIGTERM or by a request, and nobody is gone."""

_POLL_S = 0.2
_WARM_MODULES = ("inference.predictor", "cases.files")


@dataclass
class _Entry:
    """A job that waits or runs."""

    request: Request
    context: JobContext
    dropped: bool = False


class Worker:
    """Runs the requests of one client, one job at a time.

    The main thread runs the jobs, so that signals and libraries find themselves where they expect to be. One thread
    reads requests, and one ends the process when the client is gone and the job does not stop by itself.

    Args:
        stream: where events go.
        parent_pid: process whose end ends this one, beside the end of standard input.
    """

    def __init__(self, stream: EventStream, parent_pid: int) -> None:
        self._stream = stream
        self._parent_pid = parent_pid
        self._queue: queue.SimpleQueue[_Entry | str] = queue.SimpleQueue()  # its put is safe in a signal handler
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._current: _Entry | None = None
        self._leave_by: float | None = None
        self._exit_code = EXIT_DONE

    def run(self) -> int:
        """Serve until the client leaves; return the process's exit code."""
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._on_signal)
        self._send({"event": "ready", "pid": os.getpid(), "versions": package_versions()})
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        threading.Thread(target=self._watch, name="parent", daemon=True).start()
        while self._leave_by is None:
            entry = self._queue.get()
            if isinstance(entry, _Entry):
                self._run_entry(entry)
            elif entry == "warm":
                self._warm()
        return self._exit_code

    def _run_entry(self, entry: _Entry) -> None:
        with self._lock:
            if entry.dropped:
                return
            self._waiting.remove(entry)
            self._current = entry
            if self._leave_by is not None:  # set between two jobs: this one is to stop at its first safe point
                entry.context.cancel()
        try:
            run_job(entry.request, entry.context)
        finally:
            with self._lock:
                self._current = None

    def _warm(self) -> None:
        """Import what the first job would have to wait for."""
        started = time.monotonic()
        root = __package__.rpartition(".")[0]
        try:
            for name in _WARM_MODULES:
                importlib.import_module(f"{root}.{name}")
        except ImportError as error:
            self._send({"event": "warning", "text": f"The Python package '{error.name}' cannot be used: {error}."})
        self._send({"event": "warmed", "seconds": round(time.monotonic() - started, 2)})

    def _read(self) -> None:
        """Hear requests until the client closes its end."""
        pending = bytearray()
        too_long = False
        # The descriptor itself: a thread that waits inside `sys.stdin` would hold its lock when the process ends.
        while chunk := os.read(0, 1 << 16):
            *lines, rest = chunk.split(b"\n")
            for line in lines:
                pending += line
                if not too_long:
                    self._answer(bytes(pending))
                pending.clear()
                too_long = False
            pending += rest
            if len(pending) > MAX_REQUEST_CHARACTERS and not too_long:
                self._answer(bytes(pending))  # refused for its length
                too_long = True
            if too_long:
                pending.clear()
        self._leave(GRACE_S)

    def _answer(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            request = parse_request(line)
            self._obey(request)
        except ForgettableSegError as error:
            self._refuse(request_id(line), error)
        except Exception as error:  # a request must never end the worker
            self._refuse("", ForgettableSegError(ErrorCode.REQUEST_INVALID, f"The request cannot be read: {error}."))

    def _obey(self, request: WorkerRequest) -> None:
        if request.request == "job":
            self._enqueue(request)
        elif request.request == "warm":
            self._queue.put("warm")
        elif request.request == "shutdown":
            self._leave(GRACE_ASKED_S)
        elif request.request == "cancel":
            self._cancel(request.id)
        else:
            with self._lock:
                entry = self._current
            if entry is not None and request.id in ("", entry.context.id):
                entry.context.pause() if request.request == "pause" else entry.context.resume()

    def _enqueue(self, request: WorkerRequest) -> None:
        arguments = make_request(request.job, request.arguments)
        entry = _Entry(arguments, JobContext(id=request.id, job=request.job, sink=self._send))
        with self._lock:
            self._waiting.append(entry)
        self._queue.put(entry)

    def _cancel(self, identifier: str) -> None:
        """Stop the running job, or take a waiting one out of the queue. A job that has ended is no error."""
        with self._lock:
            if self._current is not None and identifier in ("", self._current.context.id):
                self._current.context.cancel()
                return
            dropped = [entry for entry in self._waiting if identifier in ("", entry.context.id)]
            for entry in dropped:
                entry.dropped = True
                self._waiting.remove(entry)
        for entry in dropped:
            entry.context.emit({"event": "cancelled", "resumable": None})

    def _refuse(self, identifier: str, error: ForgettableSegError) -> None:
        event = {"event": "failed", "code": str(error.code), "text": error.message, "hint": error.hint, "log": ""}
        self._send({**event, "id": identifier, "time": round(time.time(), 3)})

    def _send(self, event: dict[str, Any]) -> None:
        try:
            self._stream.write_line(encode_event({"id": "", "time": round(time.time(), 3), **event}))
        except OSError:  # nobody listens any more
            self._leave(GRACE_S)

    def _on_signal(self, number: int, frame: object) -> None:
        self._exit_code = EXIT_CANCELLED
        self._leave(GRACE_ASKED_S)

    def _leave(self, grace_s: float) -> None:
        """Stop the job at its next safe point and end; takes no lock, for a signal handler calls it."""
        leave_by = time.monotonic() + grace_s
        self._leave_by = leave_by if self._leave_by is None else min(leave_by, self._leave_by)
        current = self._current
        if current is not None:
            current.context.cancel()
        self._queue.put("leave")

    def _watch(self) -> None:
        """End the process when the parent is gone, and at the latest when the time to stop has passed."""
        parent = _Parent(self._parent_pid)
        while True:
            if not parent.is_alive():
                self._leave(GRACE_S)
                parent = _Parent(os.getpid())
            if self._leave_by is not None and time.monotonic() > self._leave_by:
                os._exit(EXIT_CANCELLED)
            time.sleep(_POLL_S)


class _Parent:
    """The process that this one must not outlive.

    Without psutil (before a user has installed the requirements) only the end of standard input tells.
    """

    def __init__(self, pid: int) -> None:
        try:
            import psutil
        except ImportError:
            self._gone = lambda: False
            return
        try:
            process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._gone = lambda: True
            return

        def gone() -> bool:
            try:
                return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                return True
            except psutil.Error:  # no right to ask: it is there
                return False

        self._gone = gone

    def is_alive(self) -> bool:
        return not self._gone()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the worker until its client leaves, and end the process.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(prog="forgettableseg worker", description="Serve jobs over standard streams.")
    parser.add_argument("--parent-pid", type=int, default=os.getppid(), help="process whose end ends the worker")
    options = parser.parse_args(arguments)
    prepare_threads()
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    code = Worker(EventStream(), options.parent_pid).run()
    sys.stderr.flush()
    # Not by returning: taking torch apart keeps a process for seconds on a busy machine, and nothing here needs it.
    os._exit(code)


if __name__ == "__main__":
    main()
