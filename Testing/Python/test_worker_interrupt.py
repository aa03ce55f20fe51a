"""Jobs that are stopped: by a request, a signal or the death of the client; and what can be gone on with then."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from job_inputs import make_cases, run, training_arguments
from worker_process import BY_MODULE, ROOT, WorkerProcess, ready_worker

from ForgettableSegLib.worker.protocol import encode_request

ENDLESS = {"iterations": 100_000, "checkpoint_every": 20, "validate_every": 100_000}


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    with ready_worker() as process:
        process.send(encode_request("warm"))
        process.wait_for_kind("warmed")
        yield process


def wait_until_it_trains(worker: WorkerProcess, run_folder: Path) -> None:
    worker.wait_for(lambda event: event["event"] == "progress" and event["phase"] == "train")
    deadline = time.monotonic() + 60
    while not any(run_folder.glob("checkpoint/[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.05)


def resume_shortened(worker: WorkerProcess, run_folder: Path) -> dict[str, Any]:
    """Go on with a run until it is seen to train, then cancel it; return the event that showed it."""
    worker.submit("resume", {"run": str(run_folder)}, id="again")
    seen = worker.wait_for(
        lambda event: event["id"] == "again" and (event["event"] == "failed" or event.get("phase") == "train")
    )
    worker.send(encode_request("cancel", id="again"))
    worker.wait_for_kind("cancelled", "failed")
    return seen


def test_a_cancelled_training_stops_within_two_seconds_and_can_be_resumed(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    worker.submit("train", training_arguments(tmp_path / "cases", tmp_path / "run", **ENDLESS), id="t")
    wait_until_it_trains(worker, tmp_path / "run")
    began = time.monotonic()
    worker.send(encode_request("cancel", id="t"))
    cancelled = worker.wait_for_kind("cancelled", "failed", "done")
    assert time.monotonic() - began < 2
    assert cancelled["event"] == "cancelled"
    assert cancelled["resumable"] == str(tmp_path / "run")
    assert worker.run("check", {"device": "cpu"}, id="after")["event"] == "done"  # the worker lives on
    progress = resume_shortened(worker, tmp_path / "run")
    assert progress["event"] == "progress"
    assert progress["step"] >= 20


def test_a_training_cancelled_before_it_has_a_checkpoint_is_not_called_resumable(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    arguments = training_arguments(tmp_path / "cases", tmp_path / "run", **ENDLESS)
    worker.send(encode_request("job", id="t", job="train", arguments=arguments) + encode_request("cancel", id="t"))
    assert worker.wait_for_kind("cancelled", "failed", "done") == {
        **worker.events[-1],
        "event": "cancelled",
        "resumable": None,
    }


def test_a_paused_training_waits_and_goes_on(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.submit("train", training_arguments(tmp_path / "cases", tmp_path / "run", **ENDLESS), id="t")
    wait_until_it_trains(worker, tmp_path / "run")
    worker.send(encode_request("pause", id="t"))
    worker.wait_for_kind("paused", timeout_s=15)
    worker.send(encode_request("resume", id="t"))
    worker.wait_for_kind("resumed", timeout_s=15)
    worker.wait_for(lambda event: event["event"] == "progress" and event["phase"] == "train", timeout_s=15)
    worker.send(encode_request("pause", id="t"))
    worker.wait_for_kind("paused", timeout_s=15)
    worker.send(encode_request("cancel", id="t"))
    assert worker.wait_for_kind("cancelled", timeout_s=15)["id"] == "t"


def test_a_cancelled_segmentation_stops_within_two_seconds_and_leaves_whole_cases(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    run("train", **training_arguments(tmp_path / "cases", tmp_path / "run"))
    cases = make_cases(tmp_path / "many", 40, shape=(12, 80, 72))
    model, output = str(tmp_path / "run" / "model"), tmp_path / "out"
    request = {"model": model, "cases": cases, "output": str(output), "anyway": True}  # larger than what it has learnt
    worker.submit("segment", request, id="s")
    worker.wait_for(lambda event: event["event"] == "artifact" and event["kind"] == "review")
    began = time.monotonic()
    worker.send(encode_request("cancel", id="s"))
    assert worker.wait_for_kind("cancelled", "done")["event"] == "cancelled"
    assert time.monotonic() - began < 2
    folders = [path for path in output.iterdir() if path.is_dir()]
    assert 0 < len(folders) < len(cases)
    assert {len(list(folder.iterdir())) for folder in folders} == {5}
    assert not any(path.name.startswith(".") for path in output.iterdir())


@pytest.mark.parametrize("how", ["SIGTERM", "end of input", pytest.param("SIGKILL", marks=pytest.mark.slow)])
def test_a_worker_that_ends_in_a_training_leaves_a_run_that_can_be_resumed(
    worker: WorkerProcess, how: str, tmp_path: Path
) -> None:
    with ready_worker() as ending:
        ending.submit("train", training_arguments(tmp_path / "cases", tmp_path / "run", **ENDLESS))
        wait_until_it_trains(ending, tmp_path / "run")
        began = time.monotonic()
        if how == "end of input":
            ending.process.stdin.close()
        else:
            ending.process.send_signal(getattr(signal, how))
        ending.process.wait(5)
        assert time.monotonic() - began < 2.5
    assert resume_shortened(worker, tmp_path / "run")["event"] == "progress"


# A parent that starts a worker, hands it the request it is given, and keeps its pipe open in another process.
PARENT = """
import os, subprocess, sys, time
read, write = os.pipe()
worker = subprocess.Popen(sys.argv[2:], stdin=read, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
keeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], pass_fds=[write])
os.write(write, open(sys.argv[1], "rb").read())
print(worker.pid, keeper.pid, flush=True)
for line in worker.stdout:
    pass
"""


def test_a_killed_parent_ends_the_worker_within_two_seconds_in_the_middle_of_a_training(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    request = tmp_path / "request"
    arguments = training_arguments(tmp_path / "cases", tmp_path / "run", **ENDLESS)
    request.write_text(encode_request("job", id="t", job="train", arguments=arguments))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(request), *BY_MODULE], stdout=subprocess.PIPE, cwd=ROOT
    )
    child, keeper = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
    try:
        deadline = time.monotonic() + 60
        while not any((tmp_path / "run").glob("checkpoint/[0-9]*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert child.is_running()
        parent.kill()
        _, alive = psutil.wait_procs([child], timeout=2)
        assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    finally:
        parent.stdout.close()
        parent.wait()
        keeper.kill()
    assert resume_shortened(worker, tmp_path / "run")["event"] == "progress"
