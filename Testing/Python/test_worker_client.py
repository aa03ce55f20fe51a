"""The worker client: one final event a job, whatever the worker does or however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ForgettableSegLib.worker.client import SubprocessTransport, WorkerClient, worker_command

FINAL = ("done", "failed", "cancelled")

# A worker that does as it is told, for what the real one must never do: fall silent, die, babble.
OBEDIENT_WORKER = """
    import json, os, subprocess, sys, time
    def tell(event, **more):
        print("@fs " + json.dumps({"event": event, "time": 0, **more}), flush=True)
    tell("ready", id="", pid=os.getpid(), versions={})
    for line in sys.stdin:
        request = json.loads(line)
        if request["request"] == "shutdown":
            sys.exit(0)
        if request["request"] == "cancel" and mode == "polite":
            tell("cancelled", id=request["id"], resumable="run-folder")
        if request["request"] != "job":
            continue
        mode = request["job"]
        tell("started", id=request["id"], job=mode, pid=os.getpid())
        if mode == "echo":
            tell("log", id="another job", text="not for you")
            print("plain words")
            print("words of trouble", file=sys.stderr, flush=True)
            time.sleep(0.2)
            tell("done", id=request["id"], exit_code=0, result=request["arguments"])
        elif mode == "die":
            print("last words", file=sys.stderr, flush=True)
            os._exit(3)
        elif mode == "die, but not my child":
            print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
            os._exit(4)
"""


class Listener:
    """Collects events of a client whose worker is a child process."""

    def __init__(self, command: list[str], **options: float) -> None:
        self.transport = SubprocessTransport(command)
        self.client = WorkerClient(self.transport, **options)
        self.events: list[dict] = []

    def submit(self, job: str, arguments: dict | None = None) -> str:
        return self.client.submit(job, arguments or {}, self.events.append)

    def run_until(self, condition: object, timeout_s: float = 20.0) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"nothing came; so far {self.events}"
            self.transport.pump(0.05)
            self.client.tick()

    def finish(self, timeout_s: float = 20.0) -> dict:
        self.run_until(lambda: not self.client.is_busy(), timeout_s)
        return self.events[-1]

    def kinds(self, job_id: str) -> list[str]:
        return [event["event"] for event in self.events if event["id"] == job_id]


def _is_alive(process_id: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    status = Path(f"/proc/{process_id}/stat")
    if status.parent.parent.joinpath("self").exists():
        return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return subprocess.run(["ps", "-p", str(process_id)], capture_output=True).returncode == 0


@pytest.fixture
def obedient(tmp_path: Path):
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(OBEDIENT_WORKER))
    listener = Listener([sys.executable, "-u", str(script)], cancel_grace_s=0.5)
    yield listener
    listener.client.shutdown(timeout_s=1.0)


@pytest.fixture(scope="module")
def real():
    """One real worker for the tests of this file; it is started again where a test kills it."""
    listener = Listener(worker_command())
    yield listener
    listener.client.shutdown(timeout_s=5.0)


def test_arguments_reach_the_worker_and_its_events_come_back(obedient: Listener) -> None:
    job = obedient.submit("echo", {"path": "a folder/ä.nrrd", "region": [[0, 0, 0], [1, 2, 3]]})
    done = obedient.finish()
    assert done["event"] == "done"
    assert done["result"] == {"path": "a folder/ä.nrrd", "region": [[0, 0, 0], [1, 2, 3]]}
    assert "started" in obedient.kinds(job)
    assert {event["text"] for event in obedient.events if event["event"] == "log"} == {
        "plain words",
        "words of trouble",
    }
    assert len(obedient.events) == len(obedient.kinds(job)), "an event of another job came through"


def test_jobs_run_one_after_the_other_in_the_same_process(obedient: Listener) -> None:
    jobs = [obedient.submit("echo", {"n": n}) for n in range(3)]
    obedient.finish()
    finals = [(event["id"], event["result"]["n"]) for event in obedient.events if event["event"] == "done"]
    assert finals == [(job, n) for n, job in enumerate(jobs)]
    assert len({event["pid"] for event in obedient.events if event["event"] == "started"}) == 1


def test_death_is_told_in_one_sentence_with_the_log_and_the_next_job_works(obedient: Listener) -> None:
    dying, next_job = obedient.submit("die"), obedient.submit("echo")
    obedient.finish()
    failed = next(event for event in obedient.events if event["event"] == "failed")
    assert failed["id"] == dying
    assert failed["code"] == "WORKER_DIED"
    assert failed["text"] == "The worker process ended unexpectedly with exit code 3."
    assert "last words" in failed["log"]
    assert obedient.kinds(next_job)[-1] == "done"


def test_death_is_noticed_though_a_grandchild_holds_the_pipe_and_it_is_not_left_behind(obedient: Listener) -> None:
    started = time.monotonic()
    obedient.submit("die, but not my child")
    failed = obedient.finish()
    assert failed["code"] == "WORKER_DIED"
    assert time.monotonic() - started < 2.0
    child = next(int(event["text"]) for event in obedient.events if event["event"] == "log")
    time.sleep(0.1)
    assert not _is_alive(child)


def test_a_polite_cancel_keeps_the_worker(obedient: Listener) -> None:
    job = obedient.submit("polite")
    obedient.run_until(lambda: "started" in obedient.kinds(job))
    pid = obedient.transport.process_id
    obedient.client.cancel(job)
    obedient.client.cancel(job)  # a second click changes nothing
    assert obedient.finish()["resumable"] == "run-folder"
    assert obedient.kinds(job).count("cancelled") == 1
    obedient.submit("echo")
    obedient.finish()
    assert obedient.transport.process_id == pid


def test_a_job_that_does_not_answer_a_cancel_is_ended(obedient: Listener) -> None:
    job = obedient.submit("silent")
    obedient.run_until(lambda: "started" in obedient.kinds(job))
    pid = obedient.transport.process_id
    obedient.client.cancel()
    assert obedient.finish(timeout_s=5)["event"] == "cancelled"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    obedient.submit("echo")
    assert obedient.finish()["event"] == "done"


def test_cancelling_a_waiting_job_leaves_the_running_one_alone(obedient: Listener) -> None:
    running, waiting = obedient.submit("echo"), obedient.submit("echo")
    obedient.client.cancel(waiting)
    assert obedient.kinds(waiting) == ["cancelled"]
    obedient.finish()
    assert obedient.kinds(running)[-1] == "done"


def test_a_job_may_be_submitted_from_a_callback(obedient: Listener) -> None:
    second: list[str] = []

    def on_event(event: dict) -> None:
        if event["event"] in FINAL:
            second.append(obedient.submit("echo", {"second": True}))

    obedient.client.submit("echo", {}, on_event)
    assert obedient.finish()["result"] == {"second": True}
    assert len(second) == 1


def test_shutdown_tells_every_job_and_ends_the_process(obedient: Listener) -> None:
    jobs = [obedient.submit("silent"), obedient.submit("echo")]
    obedient.run_until(lambda: bool(obedient.events))
    pid = obedient.transport.process_id
    obedient.client.shutdown(timeout_s=2.0)
    assert [obedient.kinds(job)[-1] for job in jobs] == ["cancelled", "cancelled"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    obedient.submit("echo")
    assert obedient.finish()["event"] == "done", "a client that was shut down starts again"


def test_a_worker_that_cannot_be_started_is_a_failed_job() -> None:
    listener = Listener(["/no/such/python"])
    listener.submit("echo")
    assert not listener.client.is_busy()
    assert [event["code"] for event in listener.events] == ["WORKER_DIED"]
    assert "could not be started" in listener.events[0]["text"]


def test_the_warm_worker_starts_a_second_job_within_half_a_second(real: Listener) -> None:
    real.submit("check", {"device": "cpu"})
    assert real.finish(timeout_s=60)["event"] == "done"
    asked = time.monotonic()
    job = real.submit("check", {"device": "cpu"})
    real.run_until(lambda: "started" in real.kinds(job))
    assert time.monotonic() - asked < 0.5
    assert real.finish(timeout_s=60)["event"] == "done"


def test_the_real_worker_refuses_a_wrong_request_and_lives_on(real: Listener) -> None:
    real.submit("segment", {"modell": "x"})
    failed = real.finish(timeout_s=60)
    assert (failed["event"], failed["code"]) == ("failed", "REQUEST_INVALID")
    real.submit("check", {"device": "cpu"})
    assert real.finish(timeout_s=60)["event"] == "done"


def test_killing_the_real_worker_is_reported_within_two_seconds_and_the_next_job_works(real: Listener) -> None:
    job = real.submit("check", {"device": "cpu"})
    real.run_until(lambda: "started" in real.kinds(job), timeout_s=60)
    os.kill(real.transport.process_id, signal.SIGKILL)
    killed = time.monotonic()
    failed = real.finish()
    assert time.monotonic() - killed < 2.0
    assert (failed["event"], failed["code"]) == ("failed", "WORKER_DIED")
    assert "killed" in failed["text"]
    real.submit("check", {"device": "cpu"})
    assert real.finish(timeout_s=60)["event"] == "done"


def test_importing_the_client_loads_no_heavy_package() -> None:
    code = (
        "import sys, ForgettableSegLib.worker.client\n"
        "print([m for m in ('torch', 'monai', 'numpy') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
