"""The real worker over Qt's event loop: warm the second time, and its death is told in one sentence."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def worker(application: Any) -> Iterator[Any]:
    """A worker in this Python."""
    from ForgettableSegGUI.worker_process import QProcessTransport, Worker

    made = Worker(QProcessTransport(lambda: sys.executable))
    yield made
    made.shutdown()


def run(worker: Any, job: str, arguments: dict[str, Any]) -> list[tuple[float, dict[str, Any]]]:
    """Run a job to its end; returns its events with the seconds since it was submitted."""
    from stand_in import spin

    begun, events = time.monotonic(), []
    worker.submit(job, arguments, lambda event: events.append((time.monotonic() - begun, event)))
    assert spin(lambda: not worker.client.is_busy(), 120)
    return events


def test_a_second_job_starts_within_half_a_second(worker: Any) -> None:
    run(worker, "models", {"action": "list"})
    events = run(worker, "models", {"action": "list"})
    started = next(seconds for seconds, event in events if event["event"] == "started")
    assert started < 0.5
    assert events[-1][1]["event"] == "done"


def test_a_killed_worker_is_told_within_two_seconds_and_the_next_job_works(worker: Any) -> None:
    from ForgettableSegGUI.worker_process import killProcess
    from stand_in import spin

    events: list[dict[str, Any]] = []
    worker.submit("check", {"device": "cpu"}, events.append)
    assert spin(lambda: worker.transport.workerPid != 0, 60)
    killed = time.monotonic()
    killProcess(worker.transport.workerPid)
    assert spin(lambda: not worker.client.is_busy(), 10)
    assert time.monotonic() - killed < 2.0
    assert (events[-1]["event"], events[-1]["code"]) == ("failed", "WORKER_DIED")
    assert events[-1]["text"].count(".") == 1
    assert run(worker, "models", {"action": "list"})[-1][1]["event"] == "done"


def test_a_missing_interpreter_is_one_sentence(application: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ForgettableSegGUI.worker_process import Worker

    monkeypatch.setenv("PATH", "")
    worker, events = Worker(), []
    worker.submit("models", {"action": "list"}, events.append)
    assert [event["event"] for event in events] == ["failed"]
    assert "PythonSlicer was not found" in events[0]["text"]


def test_chunks_become_lines_whatever_their_borders(application: Any) -> None:
    from ForgettableSegGUI.worker_process import LineSplitter

    lines: list[str] = []
    splitter = LineSplitter(lines.append)
    for chunk in (b"a\nb", b"c\r\nd\xc3", b"\xa9\n\xff", b"end"):
        splitter.feed(chunk)
    splitter.close()
    assert lines == ["a", "bc", "dé", "\ufffdend"]
