"""The worker as a real process: jobs in a row, requests of any kind, and an end under all circumstances."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from worker_process import BY_MODULE, BY_PATH, ROOT, WorkerProcess, ready_worker

from ForgettableSegLib.worker.protocol import encode_request


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    with ready_worker() as process:
        yield process


def gone_within(pid: int, seconds: float) -> bool:
    """Whether a process ends in that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("command", [BY_MODULE, BY_PATH], ids=["by module", "by path"])
def test_the_worker_is_ready_at_once_and_has_not_imported_torch(command: tuple[str, ...], tmp_path: Path) -> None:
    cwd = ROOT if command is BY_MODULE else tmp_path
    with WorkerProcess(command, cwd) as worker:
        ready = worker.wait_for_kind("ready", timeout_s=20)
        assert ready["pid"] == worker.process.pid
        assert ready["versions"]["ForgettableSeg"]
        loaded = Path(f"/proc/{ready['pid']}/maps")
        if loaded.exists():
            assert "libtorch" not in loaded.read_text()


def test_started_by_its_path_the_worker_does_not_hide_packages_by_its_own_files() -> None:
    code = (
        "import runpy, sys; sys.argv = [sys.argv[1], '--help']; sys.path[0] = 'jobs'\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('path:', sys.path[0])"
    )
    printed = subprocess.check_output([sys.executable, "-c", code, BY_PATH[1]], text=True)
    assert printed.splitlines()[-1] == f"path: {ROOT}"


def test_two_jobs_in_a_row_share_the_process_and_its_imports(worker: WorkerProcess) -> None:
    worker.run("check", {"device": "cpu"}, id="a")
    began = time.monotonic()
    done = worker.run("check", {"device": "cpu"}, id="b")
    assert time.monotonic() - began < 0.5  # torch alone takes longer to import
    started = [event for event in worker.events if event["event"] == "started"]
    assert {event["pid"] for event in started[-2:]} == {worker.process.pid}
    assert done["exit_code"] == 0
    assert done["result"]["device"] == "cpu"


def test_every_line_on_standard_output_is_an_event(worker: WorkerProcess) -> None:
    worker.run("check", {"device": "cpu"})
    assert worker.other_output == []


def test_what_libraries_print_goes_to_standard_error() -> None:
    code = (
        "import os, sys; sys.argv = ['worker']\n"
        "from ForgettableSegLib.jobs import check\nfrom ForgettableSegLib.worker import process\n"
        "def run(request, context):\n"
        "    print('from python'); os.write(1, b'from C'); os.system('echo from a child')\n"
        "    context.log('half'); raise SystemExit(3)\n"
        "check.run = run\n"
        "process.main([])"
    )
    with WorkerProcess((sys.executable, "-c", code)) as worker:
        failed = worker.run("check", {})
        assert failed["code"] == "INTERNAL"
        assert worker.other_output == []
        worker.process.stdin.close()
        worker.process.wait(5)
        time.sleep(0.1)
        log = "".join(worker.log)
        assert all(text in log for text in ("from python", "from C", "from a child"))


MALFORMED = [
    b"hello\n",
    b"{\n",
    b"\xff\xfe\x00\n",
    b"[1, 2]\n",
    b"null\n",
    b'{"request": "fly", "id": "x"}\n',
    b'{"request": "job", "id": "x"}\n',
    b'{"request": "job", "id": "x", "job": "dance"}\n',
    b'{"request": "job", "id": "x", "job": "check", "arguments": [1]}\n',
    b'{"request": "job", "id": "x", "job": "check", "arguments": {"gpu": 1}}\n',
    b'{"request": "job", "id": "x", "job": "segment", "arguments": {}}\n',
    b'{"request": "job", "id": "x", "job": "resume", "arguments": {"run": 3}}\n',
    b'{"request": "cancel", "id": {"a": []}}\n',
    b'{"request": "job", "id": "x", "job": "check", "arguments": {"device": ' + b"[" * 50_000 + b"\n",
    b"9" * 10_000 + b"\n",
]


@pytest.mark.parametrize("line", MALFORMED, ids=lambda line: line[:40].decode(errors="replace").strip())
def test_a_malformed_request_is_refused_and_the_worker_goes_on(worker: WorkerProcess, line: bytes) -> None:
    worker.send(line)
    failed = worker.wait_for_kind("failed", timeout_s=5)
    assert failed["code"] == "REQUEST_INVALID"
    assert failed["text"].endswith(".")
    assert "Traceback" not in failed["text"]
    assert failed["id"] == ("x" if b'"id": "x"' in line and line.rstrip().endswith(b"}") else "")
    assert worker.run("check", {"device": "cpu"}, id="after")["event"] == "done"


@pytest.mark.parametrize(
    "line", [b"\n", b"  \r\n", b'{"request": "cancel", "id": "gone"}\n', b'{"request": "pause"}\n']
)
def test_requests_that_mean_nothing_now_are_passed_over(worker: WorkerProcess, line: bytes) -> None:
    before = len(worker.events)
    worker.send(line)
    worker.run("check", {"device": "cpu"}, id="next")
    assert {event["id"] for event in worker.events[before:]} == {"next"}


def test_a_request_may_come_in_pieces(worker: WorkerProcess) -> None:
    line = encode_request("job", id="pieces", job="check", arguments={"device": "cpu"}).encode()
    for start in range(0, len(line), 7):
        worker.send(line[start : start + 7])
        time.sleep(0.001)
    assert worker.wait_for_kind("done", "failed")["id"] == "pieces"


def test_a_waiting_job_can_be_taken_back(worker: WorkerProcess) -> None:
    before = len(worker.events)
    lines = [encode_request("job", id=name, job="check", arguments={"device": "cpu"}) for name in ("p", "q", "r")]
    worker.send("".join([*lines, encode_request("cancel", id="q")]))
    worker.wait_for(lambda event: event["event"] == "done" and event["id"] == "r")
    last = {event["id"]: event["event"] for event in worker.events[before:]}
    assert last["p"] == last["r"] == "done"
    assert last["q"] in ("cancelled", "done")  # done, if it was the quicker one
    assert [event["id"] for event in worker.events[before:] if event["event"] == last["q"]].count("q") == 1


def test_a_job_that_fails_says_so_in_words(worker: WorkerProcess) -> None:
    failed = worker.run("check", {"device": "cuda:99"})
    assert failed["code"] == "DEVICE_UNAVAILABLE"
    assert Path(failed["log"]).read_text().count("Traceback") == 1


def test_warm_imports_before_the_first_job() -> None:
    with ready_worker() as worker:
        worker.send(encode_request("warm"))
        assert worker.wait_for_kind("warmed")["seconds"] >= 0
        began = time.monotonic()
        assert worker.run("check", {"device": "cpu"})["event"] == "done"
        assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("how", ["end of input", "shutdown", "SIGTERM", "SIGINT"])
def test_an_idle_worker_ends_when_it_should(how: str) -> None:
    with ready_worker() as worker:
        if how == "end of input":
            worker.process.stdin.close()
        elif how == "shutdown":
            worker.send(encode_request("shutdown"))
        else:
            worker.process.send_signal(getattr(signal, how))
        assert worker.process.wait(2) == (130 if how.startswith("SIG") else 0)


# A parent that starts a worker whose pipe somebody else keeps open, so that only its death tells.
PARENT = """
import os, subprocess, sys, time
read, write = os.pipe()
worker = subprocess.Popen(sys.argv[1:], stdin=read, stdout=subprocess.PIPE)
keeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[write])
worker.stdout.readline()
print(worker.pid, keeper.pid, flush=True)
time.sleep(60)
"""


def test_the_worker_does_not_outlive_a_killed_parent_even_if_its_input_stays_open() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *BY_MODULE], stdout=subprocess.PIPE, cwd=ROOT)
    worker, keeper = map(int, parent.stdout.readline().split())
    try:
        assert psutil.pid_exists(worker)
        parent.kill()
        assert gone_within(worker, 2)
        assert psutil.pid_exists(keeper)
    finally:
        parent.stdout.close()
        parent.wait()
        psutil.Process(keeper).kill()


def test_the_worker_ends_when_nobody_reads_its_events() -> None:
    worker = subprocess.Popen(BY_MODULE, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        worker.stdout.readline()
        worker.stdout.close()
        worker.stdin.write(b"nonsense\n")
        worker.stdin.flush()
        assert worker.wait(2) == 0
    finally:
        worker.kill()
        worker.stdin.close()
        worker.wait()
