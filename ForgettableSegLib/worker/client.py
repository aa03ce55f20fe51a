"""The client's side of the worker: submit a job, hear its events, survive the worker's death.

Nothing here knows Slicer or Qt, and nothing starts a thread that the caller would notice: every callback comes on the
thread that runs the transport's event loop (Qt's own, or whoever calls :meth:`SubprocessTransport.pump`).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ForgettableSegLib.errors import ErrorCode
from ForgettableSegLib.worker.protocol import FINAL_EVENTS, encode_request, parse_line

Event = dict[str, Any]
_LOG_LINES = 200
_LINES_SHOWN = 30


def worker_command(python: str | Path | None = None) -> list[str]:
    """Command that starts the worker.

    The worker is started by its path, because neither an installed Slicer extension nor a source checkout can rely on
    PYTHONPATH reaching it.

    Args:
        python: interpreter that has the library's requirements; the running one by default.
    """
    return [str(python or sys.executable), "-u", str(Path(__file__).with_name("process.py"))]


class Transport(Protocol):
    """A process whose lines can be written and heard; its callbacks come on the thread of the caller's event loop."""

    def start(self, on_line: Callable[[str], None], on_exit: Callable[[int], None]) -> None:
        """Start the process.

        Args:
            on_line: called with each line that the process writes, on either of its streams, without the line's end.
            on_exit: called once, after the last line, with the exit code (negative: the signal that ended it).

        Raises:
            OSError: if the process cannot be started.
        """

    def write(self, line: str) -> None:
        """Write one line (given without its end) to the process. A process that is gone is not an error here."""

    def is_running(self) -> bool:
        """Whether the process is alive."""

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; True if it has."""

    def kill(self) -> None:
        """End the process and all that it started, at once."""


@dataclass
class _Job:
    id: str
    name: str
    arguments: Mapping[str, Any]
    on_event: Callable[[Event], None]
    deadline: float | None = field(default=None)  # when a cancelled job is ended by force


class WorkerClient:
    """Runs jobs in one worker process, one after the other, and keeps the process warm between them.

    Every job ends with exactly one of the events `done`, `failed` and `cancelled`, whatever happens to the worker; a
    worker that died is started again for the next job.

    Args:
        transport: the process and the way to talk to it.
        cancel_grace_s: seconds that a cancelled job may take to stop by itself before the worker is killed.

    Example:
        >>> transport = SubprocessTransport(worker_command())
        >>> client = WorkerClient(transport)
        >>> client.submit("check", {"device": "cpu"}, print)
        >>> while client.is_busy():
        ...     transport.pump(0.1)
        ...     client.tick()
        >>> client.shutdown()
    """

    def __init__(self, transport: Transport, *, cancel_grace_s: float = 20.0) -> None:
        self.log: deque[str] = deque(maxlen=_LOG_LINES)
        self._transport = transport
        self._cancel_grace_s = cancel_grace_s
        self._jobs: deque[_Job] = deque()  # the first one is running
        self._next_id = 1
        self._generation = 0  # of the worker process; a late word of an earlier one is not for the present job
        self._sent = False  # whether the first job has been sent to the present process

    def submit(self, job: str, arguments: Mapping[str, Any], on_event: Callable[[Event], None]) -> str:
        """Queue a job; it starts at once if the worker is idle.

        Args:
            job: kind of job ("segment", "train", ...).
            arguments: JSON-able arguments of that job.
            on_event: hears every event of this job. Lines of plain text that the worker writes come as `log` events.

        Returns:
            The job's id, which its events carry.
        """
        entry = _Job(str(self._next_id), job, dict(arguments), on_event)
        self._next_id += 1
        self._jobs.append(entry)
        if len(self._jobs) == 1:
            self._send_first()
        return entry.id

    def warm(self) -> None:
        """Start the worker before there is a job, so that the first one need not wait for it.

        Raises:
            OSError: if the process cannot be started.
        """
        self._ensure_started()
        self._transport.write(encode_request("warm"))

    def is_busy(self) -> bool:
        """Whether a job is running or waiting."""
        return bool(self._jobs)

    def running_job(self) -> str | None:
        """Id of the job at work, or None."""
        return self._jobs[0].id if self._jobs else None

    def cancel(self, job_id: str | None = None, *, now: bool = False) -> None:
        """Ask a job to stop: at its next safe point, or else when the grace time is over.

        Args:
            job_id: the job; the running one by default. An id that has ended is ignored.
            now: kill the worker instead of waiting for a safe point (a training run keeps its last checkpoint).
        """
        entry = next((job for job in self._jobs if job_id in (None, job.id)), None)
        if entry is None:
            return
        if entry is not self._jobs[0] or not self._sent:
            self._finish(entry, {"event": "cancelled", "resumable": None})
        elif now:
            self._stop_by_force(entry)
        elif entry.deadline is None:
            entry.deadline = time.monotonic() + self._cancel_grace_s
            self._write("cancel", entry)

    def pause(self) -> None:
        """Ask the running job to pause; its progress stops until :meth:`resume`."""
        if self._jobs and self._sent:
            self._write("pause", self._jobs[0])

    def resume(self) -> None:
        """Let a paused job go on."""
        if self._jobs and self._sent:
            self._write("resume", self._jobs[0])

    def tick(self) -> None:
        """To be called about once a second while a job runs: ends a cancelled job that does not answer."""
        if self._jobs and self._jobs[0].deadline is not None and time.monotonic() > self._jobs[0].deadline:
            self._stop_by_force(self._jobs[0])

    def shutdown(self, *, timeout_s: float = 5.0) -> None:
        """End the worker: politely, then by force. Jobs that have not ended hear `cancelled`."""
        self._generation += 1
        if self._transport.is_running():
            self._transport.write(encode_request("shutdown"))
            if not self._transport.wait(timeout_s):
                self._transport.kill()
        jobs, self._jobs, self._sent = list(self._jobs), deque(), False
        for entry in jobs:
            self._tell(entry, {"event": "cancelled", "resumable": None})

    def _send_first(self) -> None:
        """Send the first waiting job, starting the worker if there is none."""
        while self._jobs:
            entry = self._jobs[0]
            try:
                self._ensure_started()
            except OSError as error:
                text = f"The worker process could not be started: {error}."
                self._sent = False
                self._jobs.popleft()
                self._tell(entry, self._failure(text, hint="Check the installation in the Setup section."))
                continue
            self._sent = True
            self._write("job", entry, job=entry.name, arguments=entry.arguments)
            return

    def _ensure_started(self) -> None:
        if self._transport.is_running():
            return
        self._generation += 1
        generation = self._generation

        def on_line(line: str) -> None:
            if generation == self._generation:
                self._on_line(line)

        def on_exit(code: int) -> None:
            if generation == self._generation:
                self._on_exit(code)

        self.log.clear()
        self._transport.start(on_line, on_exit)

    def _write(self, request: str, entry: _Job, **more: Any) -> None:
        self._transport.write(encode_request(request, id=entry.id, **more))

    def _on_line(self, line: str) -> None:
        event = parse_line(line)
        entry = self._jobs[0] if self._jobs and self._sent else None
        if event is None:
            if line.strip():
                self.log.append(line)
                if entry is not None:
                    self._tell(entry, {"event": "log", "text": line})
        elif entry is not None and event.get("id") == entry.id:
            if event.get("event") in FINAL_EVENTS:
                self._finish(entry, event)
            else:
                entry.on_event(event)

    def _on_exit(self, code: int) -> None:
        if not self._jobs or not self._sent:
            return
        entry = self._jobs[0]
        if entry.deadline is not None:
            self._finish(entry, {"event": "cancelled", "resumable": None})
        else:
            hint = "Start the job again; if it happens again, choose a smaller patch or another device."
            self._finish(entry, self._failure(_death_sentence(code), hint=hint))

    def _stop_by_force(self, entry: _Job) -> None:
        self._generation += 1  # the exit that follows is ours
        self._transport.kill()
        self._finish(entry, {"event": "cancelled", "resumable": None})

    def _failure(self, text: str, *, hint: str) -> Event:
        log = "\n".join(list(self.log)[-_LINES_SHOWN:])
        return {"event": "failed", "code": ErrorCode.WORKER_DIED.value, "text": text, "hint": hint, "log": log}

    def _finish(self, entry: _Job, event: Event) -> None:
        """Take the job off the queue and send the next one before telling: a callback may submit or shut down."""
        was_first = entry is self._jobs[0]
        self._jobs.remove(entry)
        if was_first:
            self._sent = False
        try:
            self._tell(entry, event)
        finally:
            if was_first and not self._sent:
                self._send_first()

    @staticmethod
    def _tell(entry: _Job, event: Event) -> None:
        entry.on_event({"id": entry.id, "time": time.time(), **event})


def _death_sentence(code: int) -> str:
    if code in (-9, 137):
        return "The worker process was killed, most often because the machine ran out of memory."
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"The worker process was ended by the signal {signal.Signals(-code).name}."
    return f"The worker process ended unexpectedly with exit code {code}."


def _kill_group(process_id: int) -> None:
    """End all processes of the session that the worker leads."""
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process_id, signal.SIGKILL)


class SubprocessTransport:
    """The worker as a child process over pipes, for programs without Qt.

    Its readers are threads, but they only fill a queue: :meth:`pump` empties it on the caller's thread.

    Args:
        command: program and arguments, as :func:`worker_command` gives them.
        environment: variables to set beside those of this process.
    """

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def start(self, on_line: Callable[[str], None], on_exit: Callable[[int], None]) -> None:
        """Start the child; its lines and its end wait for :meth:`pump`."""
        # A session of its own: Ctrl-C in the terminal reaches the client alone, which then cancels the job properly.
        separate = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            **separate,
        )
        threading.Thread(target=self._read, args=(self._process, on_line, on_exit), daemon=True).start()

    def write(self, line: str) -> None:
        """Write one line to the child, if it is there."""
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):  # the exit is reported by on_exit
            self._process.stdin.write((line.rstrip("\n") + "\n").encode())
            self._process.stdin.flush()

    def is_running(self) -> bool:
        """Whether the child is alive."""
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout_s: float) -> bool:
        """Wait for the child to end; True if it has."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End the child and all that it started, at once."""
        if not self.is_running():
            return
        process_id = self._process.pid
        if sys.platform == "win32":
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process_id)], capture_output=True, check=False)
        else:
            _kill_group(process_id)
        self._process.wait()

    @property
    def process_id(self) -> int | None:
        """Id of the child process, or None before the first start."""
        return None if self._process is None else self._process.pid

    def pump(self, timeout_s: float) -> None:
        """Make the callbacks that are due, waiting up to `timeout_s` seconds for the first one."""
        with contextlib.suppress(queue.Empty):
            self._calls.get(timeout=timeout_s)()
            while True:
                self._calls.get_nowait()()

    def _read(
        self, process: subprocess.Popen[bytes], on_line: Callable[[str], None], on_exit: Callable[[int], None]
    ) -> None:
        readers = [
            threading.Thread(target=self._read_stream, args=(stream, on_line), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for reader in readers:
            reader.start()
        code = process.wait()
        _kill_group(process.pid)  # what the worker started has nobody left to work for
        deadline = time.monotonic() + 0.5  # if a pipe is held open all the same, the exit is not kept waiting for it
        for reader in readers:
            reader.join(timeout=max(0.0, deadline - time.monotonic()))
        self._calls.put(lambda: on_exit(code))

    def _read_stream(self, stream: Any, on_line: Callable[[str], None]) -> None:
        for raw in stream:
            line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
            self._calls.put(lambda line=line: on_line(line))
