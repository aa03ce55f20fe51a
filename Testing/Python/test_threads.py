"""Threads neither spin nor outnumber the processors, unless the user says so."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from house import ROOT

from ForgettableSegLib import threads

OURS = (*threads.WAITING, threads.NUMBER)
# What both ways to start a process of ours leave behind once torch is there.
SHOW = """
import contextlib, io, json, os, sys
from ForgettableSegLib import cli
from ForgettableSegLib.worker import process
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    if sys.argv[1] == "worker":
        process.EventStream, process.Worker.run = object, lambda self: 0
        os._exit, leave = sys.exit, os._exit
        process.main([])
    else:
        cli.main(["models", "list"])
assert "torch" not in sys.modules
import torch
print(json.dumps({"threads": torch.get_num_threads(), **{name: os.environ.get(name) for name in sys.argv[2:]}}))
"""


def started(kind: str, **variables: str) -> dict[str, str | int]:
    clean = {name: value for name, value in os.environ.items() if name not in (*OURS, "MKL_NUM_THREADS")}
    command = [sys.executable, "-c", SHOW, kind, *OURS]
    result = subprocess.run(command, cwd=ROOT, env=clean | variables, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["command", "worker"])
def test_a_process_of_ours_waits_without_spinning(kind: str) -> None:
    found = started(kind)
    assert {name: found[name] for name in threads.WAITING} == threads.WAITING
    assert found["threads"] == int(found[threads.NUMBER]) == threads.processors()


def test_the_users_own_values_win() -> None:
    found = started("command", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="ACTIVE")
    assert (found["OMP_WAIT_POLICY"], found["threads"]) == ("ACTIVE", 1)
    assert found["GOMP_SPINCOUNT"] == "0"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system knows no affinity")
def test_threads_follow_the_processors_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cgroup_quota", lambda: math.inf)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 9})
    assert threads.processors() == 3
    monkeypatch.setattr(threads, "cgroup_quota", lambda: 1.5)
    assert threads.processors() == 2
    monkeypatch.setattr(threads, "cgroup_quota", lambda: 0.2)
    assert threads.processors() == 1


def number_of_threads(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """OMP_NUM_THREADS after the preparation, on 8 processors and with these variables."""
    for name in (*OURS, "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(threads, "processors", lambda: 8)
    threads.prepare_threads()
    return os.environ[threads.NUMBER]


def test_ranks_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert number_of_threads(monkeypatch) == "8"
    assert number_of_threads(monkeypatch, LOCAL_WORLD_SIZE="3") == "2"
    assert number_of_threads(monkeypatch, LOCAL_WORLD_SIZE="16") == "1"


def test_a_number_from_torchrun_is_not_taken_for_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun sets 1 in its ranks where its own environment says nothing."""
    import psutil

    ranks = {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}
    monkeypatch.setattr(psutil.Process, "environ", lambda process: {})
    assert number_of_threads(monkeypatch, **ranks) == "4"
    monkeypatch.setattr(psutil.Process, "environ", lambda process: {"OMP_NUM_THREADS": "1"})
    assert number_of_threads(monkeypatch, **ranks) == "1"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_quota_of_version_2_is_that_of_the_narrowest_group_around(tmp_path: Path) -> None:
    write(tmp_path / "own", "0::/user/job\n")
    write(tmp_path / "fs/user/job/cpu.max", "max 100000\n")
    assert threads.cgroup_quota(tmp_path / "fs", tmp_path / "own") == math.inf
    write(tmp_path / "fs/user/cpu.max", "150000 100000\n")
    assert threads.cgroup_quota(tmp_path / "fs", tmp_path / "own") == 1.5


def test_a_quota_of_version_1_is_read_where_its_controller_is_mounted(tmp_path: Path) -> None:
    write(tmp_path / "own", "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n")
    folder = tmp_path / "fs/cpu,cpuacct"
    write(folder / "cpu.cfs_period_us", "100000\n")
    write(folder / "cpu.cfs_quota_us", "-1\n")
    assert threads.cgroup_quota(tmp_path / "fs", tmp_path / "own") == math.inf
    write(folder / "cpu.cfs_quota_us", "250000\n")  # within a container its own group is the top
    assert threads.cgroup_quota(tmp_path / "fs", tmp_path / "own") == 2.5


def test_no_control_groups_are_no_limit(tmp_path: Path) -> None:
    assert threads.cgroup_quota(tmp_path / "fs", tmp_path / "own") == math.inf
    write(tmp_path / "own", "0::/\n")
    assert threads.cgroup_quota(tmp_path / "fs", tmp_path / "own") == math.inf
