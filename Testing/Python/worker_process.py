"""A real worker process and a client that only writes lines and reads events, for the tests of the worker."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ForgettableSegLib.worker.protocol import FINAL_EVENTS, encode_request, parse_line

ROOT = Path(__file__).resolve().parents[2]
BY_MODULE = (sys.executable, "-m", "ForgettableSegLib.worker.process")
BY_PATH = (sys.executable, str(ROOT / "ForgettableSegLib" / "worker" / "process.py"))
Event = dict[str, Any]


class WorkerProcess:
    """A worker, its events in the order they came, and every line that was no event."""

    def __init__(self, command: Sequence[str] = BY_MODULE, cwd: Path = ROOT) -> None:
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.events: list[Event] = []
        self.other_output: list[str] = []
        self.log: list[str] = []
        self._queue: queue.Queue[Event | None] = queue.Queue()
        threading.Thread(target=self._read_events, daemon=True).start()
        threading.Thread(target=self._read_log, daemon=True).start()

    def _read_events(self) -> None:
        for line in self.process.stdout:
            event = parse_line(line)
            if event is None:
                self.other_output.append(line.decode())
            else:
                self._queue.put(event)
        self._queue.put(None)

    def _read_log(self) -> None:
        self.log.extend(line.decode() for line in self.process.stderr)

    def send(self, line: str | bytes) -> None:
        """Write a line as it is."""
        self.process.stdin.write(line.encode() if isinstance(line, str) else line)
        self.process.stdin.flush()

    def submit(self, job: str, arguments: Mapping[str, Any], *, id: str = "1") -> None:
        """Ask for a job."""
        self.send(encode_request("job", id=id, job=job, arguments=arguments))

    def wait_for(self, wanted: Callable[[Event], bool], *, timeout_s: float = 60) -> Event:
        """Return the next event that is wanted; the ones before it are kept in `events`."""
        deadline = time.monotonic() + timeout_s
        while True:
            event = self._queue.get(timeout=max(0.01, deadline - time.monotonic()))
            assert event is not None, f"the worker ended: {''.join(self.log)}"
            self.events.append(event)
            if wanted(event):
                return event
            assert event["event"] not in ("failed", "case_failed"), event

    def wait_for_kind(self, *kinds: str, timeout_s: float = 60) -> Event:
        """Return the next event of one of these kinds."""
        return self.wait_for(lambda event: event["event"] in kinds, timeout_s=timeout_s)

    def run(self, job: str, arguments: Mapping[str, Any], *, id: str = "1", timeout_s: float = 120) -> Event:
        """Ask for a job and return its last event."""
        self.submit(job, arguments, id=id)
        return self.wait_for(lambda event: event["event"] in FINAL_EVENTS and event["id"] == id, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.stdout.close()
            self.process.stderr.close()


@contextlib.contextmanager
def ready_worker(command: Sequence[str] = BY_MODULE, cwd: Path = ROOT) -> Iterator[WorkerProcess]:
    """A worker that has said that it is ready."""
    with WorkerProcess(command, cwd) as worker:
        worker.wait_for_kind("ready")
        yield worker
