"""The commands of Documentation/cluster.md, with small networks and two processes on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from job_inputs import SETTINGS, make_cases
from synthetic import TASK
from worker_process import ROOT

from ForgettableSegLib.jobs.failures import explain

PAGE = (ROOT / "Documentation" / "cluster.md").read_text(encoding="utf-8")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
ONE_NODE = ("--standalone", "--nproc-per-node", "2")
LIBRARY = ("-m", "ForgettableSegLib")


def settings(**changes: object) -> list[str]:
    """Settings of a short training, as a command has them."""
    return [f"--set={name}={json.dumps(value)}" for name, value in {**SETTINGS, **changes}.items()]


@pytest.fixture
def listed(tmp_path: Path) -> tuple[str, str]:
    """A case list and a task file."""
    cases = make_cases(tmp_path / "cases", 6)
    rows = [f"{case['id']},{case['images'][0]},{case['label']}" for case in cases]
    (tmp_path / "cases.csv").write_text("\n".join(["id,image,label", *rows]))
    (tmp_path / "task.json").write_text(json.dumps(TASK.to_dict()))
    return str(tmp_path / "cases.csv"), str(tmp_path / "task.json")


def start(*command: str) -> subprocess.Popen[str]:
    """A command of torchrun."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*TORCHRUN, *command], cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace"
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what was printed."""
    shown = "".join(process.communicate(timeout=240))
    return process.returncode, shown


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that must not outlive the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()


def test_the_page_shows_commands_that_exist() -> None:
    jobs = re.findall(r"-m ForgettableSegLib (\w+)", PAGE)
    assert {"train", "resume", "segment", "evaluate"} <= set(jobs)
    flags = set(re.findall(r"(?<=\s)--[a-z-]+", PAGE))
    known = subprocess.run([*TORCHRUN, "--help"], capture_output=True, encoding="utf-8", errors="replace").stdout
    for job in set(jobs):
        known += subprocess.run(
            [sys.executable, *LIBRARY, job, "--help"], cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace"
        ).stdout
    slurm = {"--nodes", "--ntasks-per-node", "--gres", "--time", "--signal"}
    assert {flag for flag in flags - slurm if flag not in known} == set()


def test_a_lost_process_is_told_in_words() -> None:
    error = explain(RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:1"))
    assert error.code == "WORKER_DIED"
    assert "Another process of this job" in error.message


@pytest.mark.slow
def test_two_processes_train_and_evaluate(listed: tuple[str, str], tmp_path: Path) -> None:
    table, task = listed
    run = str(tmp_path / "run")
    code, shown = finish(start(*ONE_NODE, *LIBRARY, "train", table, "--task", task, "--run-folder", run, *settings()))
    assert code == 0, shown
    assert shown.count("the model is in") == 1
    report = str(tmp_path / "report")
    arguments = ("evaluate", "--model", f"{run}/model", "--cases", table, "--output", report, "--device", "cpu")
    code, shown = finish(start(*ONE_NODE, *LIBRARY, *arguments))
    assert code == 0, shown
    rows = (tmp_path / "report" / "evaluation_cases.csv").read_text()
    assert all(f"ball{number:02d}" in rows for number in range(6))


@pytest.mark.slow
def test_two_nodes_train(listed: tuple[str, str], tmp_path: Path, ended: list[subprocess.Popen[str]]) -> None:
    table, task = listed
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ("--rdzv-id", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}")
    node = ("--nnodes", "2", "--nproc-per-node", "1", *meeting, *LIBRARY)
    command = (*node, "train", table, "--task", task, "--run-folder", str(tmp_path / "run"), *settings())
    ended += [start(*command), start(*command)]
    shown = ""
    for process in ended:
        code, text = finish(process)
        assert code == 0, text
        shown += text
    assert shown.count("the model is in") == 1
    assert (tmp_path / "run" / "model" / "model.json").is_file()


def wait_for_checkpoint(process: subprocess.Popen[str], run: Path, after: int = 0) -> None:
    """Until every rank has a checkpoint of a later iteration."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        ranks = [folder for folder in run.glob("checkpoint/rank*") if folder.is_dir()]
        newest = [max((int(file.name[:9]) for file in folder.glob("*.pt")), default=0) for folder in ranks]
        if len(newest) == 2 and min(newest) > after:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    pytest.fail("there was no checkpoint")


@pytest.mark.slow
def test_a_killed_process_ends_the_job_in_words_and_it_resumes(
    listed: tuple[str, str], tmp_path: Path, ended: list[subprocess.Popen[str]]
) -> None:
    table, task = listed
    run = tmp_path / "run"
    endless = settings(iterations=100_000, validate_every=100_000)
    first = start(*ONE_NODE, *LIBRARY, "train", table, "--task", task, "--run-folder", str(run), *endless)
    ended.append(first)
    wait_for_checkpoint(first, run)
    ranks = psutil.Process(first.pid).children()
    ranks[1].kill()
    code, shown = finish(first)
    assert code != 0
    assert "Another process of this job has ended" in shown, shown
    assert not [rank for rank in ranks if rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE]
    reached = max(int(file.name[:9]) for file in run.glob("checkpoint/rank*/*.pt"))
    again = start(*ONE_NODE, *LIBRARY, "resume", str(run))
    ended.append(again)
    wait_for_checkpoint(again, run, after=reached)
    again.send_signal(signal.SIGTERM)
    code, shown = finish(again)
    assert code != 0
    assert f"forgettableseg resume '{run}'" in shown, shown
