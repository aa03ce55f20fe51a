"""What a job is given: throttled progress with the time left, pause and cancel, failures in words, a log."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.failures import explain
from ForgettableSegLib.jobs.job import JobContext
from ForgettableSegLib.worker.protocol import encode_event


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def recording(**options: Any) -> tuple[JobContext, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []

    def sink(event: dict[str, Any]) -> None:
        encode_event(event)  # every event must be one that the protocol knows
        events.append(event)

    return JobContext(id="7", job="check", sink=sink, **options), events


def test_progress_is_at_most_ten_events_a_second_and_never_misses_the_end() -> None:
    clock = Clock()
    context, events = recording(clock=clock)
    for step in range(1001):
        clock.now = step * 0.01  # 100 steps a second for 10 seconds
        context.progress("train", step, 1000)
    assert 90 <= len(events) <= 102
    assert (events[0]["step"], events[-1]["step"]) == (0, 1000)


def test_phases_are_throttled_apart() -> None:
    context, events = recording(clock=Clock())
    context.progress("prepare", 1, 9)
    context.progress("train", 1, 9)
    assert [event["phase"] for event in events] == ["prepare", "train"]


def test_the_time_left_follows_the_pace_since_the_first_step() -> None:
    clock = Clock()
    context, events = recording(clock=clock)
    context.progress("train", 500, 1000)  # a resumed run begins in the middle
    clock.now = 50.0
    context.progress("train", 600, 1000)
    assert events[0]["eta_s"] is None
    assert events[1]["eta_s"] == pytest.approx(200.0)


def test_a_phase_that_begins_again_is_timed_anew() -> None:
    clock = Clock()
    context, events = recording(clock=clock)
    context.progress("windows", 1, 4, case="a")
    clock.now = 100.0
    context.progress("windows", 4, 4, case="a")
    clock.now = 101.0
    context.progress("windows", 0, 4, case="b")
    clock.now = 102.0
    context.progress("windows", 1, 4, case="b")
    assert events[-1]["eta_s"] == pytest.approx(3.0)
    assert events[-1]["case"] == "b"


def test_cancel_is_heard_at_the_next_safe_point() -> None:
    context, _ = recording()
    context.check_cancelled()
    context.cancel()
    with pytest.raises(Cancelled):
        context.check_cancelled()


def test_a_paused_job_waits_and_goes_on_and_its_pause_is_not_counted_as_work() -> None:
    clock = Clock()
    context, events = recording(clock=clock)
    context.progress("train", 0, 10)
    clock.now = 10.0
    context.pause()
    passed = threading.Event()

    def work() -> None:
        context.check_cancelled()
        passed.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert not passed.wait(0.2)
    clock.now = 1000.0
    context.resume()
    assert passed.wait(2)
    worker.join()
    clock.now = 1010.0
    context.progress("train", 2, 10)
    assert [event["event"] for event in events] == ["progress", "paused", "resumed", "progress"]
    assert events[-1]["eta_s"] == pytest.approx(80.0)  # 20 s of work for 2 steps


def test_a_paused_job_can_be_cancelled() -> None:
    context, _ = recording()
    context.pause()
    threading.Timer(0.1, context.cancel).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        context.check_cancelled()
    assert time.monotonic() - started < 2


def test_every_event_carries_id_and_time() -> None:
    context, events = recording()
    context.log("a")
    context.warning("b", case="c")
    context.metric("loss", 3, {"total": float("nan")})
    context.artifact("table", Path("t.csv"))
    assert all(event["id"] == "7" and event["time"] > 0 for event in events)
    assert [event["event"] for event in events] == ["log", "warning", "metric", "artifact"]


def test_events_of_several_threads_come_one_at_a_time() -> None:
    inside = 0
    most = 0

    def sink(event: dict[str, Any]) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.001)
        inside -= 1

    context = JobContext(sink=sink)
    threads = [threading.Thread(target=lambda: [context.log("x") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_failed_case_is_told_in_words_and_its_traceback_goes_to_the_log(tmp_path: Path) -> None:
    context, events = recording()
    context.log_to(tmp_path)
    try:
        [][3]
    except IndexError as error:
        context.case_failed("a", error)
    assert events[0]["event"] == "case_failed"
    assert events[0]["code"] == "INTERNAL"
    assert str(tmp_path / "log.txt") in events[0]["text"]
    assert "Traceback" not in events[0]["text"]
    assert "Traceback" in (tmp_path / "log.txt").read_text()
    assert context.exit_code() == 1
    assert context.failed_cases == ["a"]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    context, events = recording()
    context.log_to(tmp_path / "file")
    context.warning("still said")
    assert events[0]["text"] == "still said"


def test_only_the_latest_logs_are_kept(home: Path) -> None:
    logs = home / ".forgettableseg" / "logs"
    logs.mkdir(parents=True)
    for number in range(40):
        (logs / f"20200101-0000{number:02}-1-check.txt").write_text("")
    context, _ = recording()
    context.write_log("now")
    kept = sorted(path.name for path in logs.iterdir())
    assert len(kept) == 20
    assert context.log_file.name in kept
    assert "20200101-000039-1-check.txt" in kept


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (ForgettableSegError(ErrorCode.MODEL_MISSING, "There is no model 'x'."), "MODEL_MISSING", "'x'"),
        (ModuleNotFoundError("No module named 'monai.nets'", name="monai.nets"), "PACKAGE_MISSING", "'monai'"),
        (MemoryError(), "OUT_OF_MEMORY", "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "OUT_OF_MEMORY", "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "OUT_OF_MEMORY", "memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y.nrrd"), "DISK_FULL", "/x/y.nrrd"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y.nrrd"), "OUTPUT_UNWRITABLE", "/x/y.nrrd"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x/y"), "OUTPUT_UNWRITABLE", "/x/y"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x/y"), "FILE_MISSING", "/x/y"),
        (
            ModuleNotFoundError("No module named 'ForgettableSegLib.x'", name="ForgettableSegLib.x"),
            "INTERNAL",
            "log.txt",
        ),
        (ValueError("first line\nsecond"), "INTERNAL", "ValueError: first line"),
        (ValueError(), "INTERNAL", "no message"),
    ],
)
def test_whatever_is_raised_becomes_a_sentence_with_a_code(error: Exception, code: str, word: str) -> None:
    readable = explain(error, log="log.txt")
    assert readable.code == code
    assert word in str(readable)
    assert "\n" not in str(readable)
