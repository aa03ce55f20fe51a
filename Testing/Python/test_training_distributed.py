"""Two processes under torchrun, over gloo on the CPU: they agree, they never wait for ever, and they resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from synthetic import read_cases, write_cases
from training_cases import resume, train, weights

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def _torchrun(folder: Path, run: str, settings: dict, processes: int = 2) -> subprocess.CompletedProcess[str]:
    arguments = ["--standalone", "--nproc-per-node", str(processes), str(HERE / "distributed_run.py")]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments, str(folder), run, json.dumps(settings)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=240,
        check=False,
    )


def _learnt(folder: Path, run: str, rank: int) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{run}-rank{rank}.pt", weights_only=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with cases."""
    write_cases(tmp_path / "cases", 6)
    return tmp_path


def test_without_mining_two_processes_learn_what_one_learns(folder: Path) -> None:
    settings = {"pbs": False, "fsb": False, "iterations": 8, "validate_every": 8, "learning_rate": 0.005}
    # Each rank draws its own augmentation, so without it.
    settings |= {"augmentation": False, "spatial_augmentation": False, "aux_loss": "scdl"}
    done = _torchrun(folder, "two", settings)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = weights(train(read_cases(folder / "cases"), folder / "one", settings=settings))
    for name, tensor in _learnt(folder, "two", 0).items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-3, atol=1e-5, msg=name)


def test_with_mining_the_ranks_share_prototypes_and_weights_and_none_waits_for_ever(folder: Path) -> None:
    # A bank fills at its own speed on each rank: replay is decided together, or one would wait for the other.
    settings = {"iterations": 24, "replay_every": 1, "allow_partial": False, "batch_size": 4}
    # What is learnt of the classes and of the cases is written by each rank, and must be the same.
    settings |= {
        "memory": "class",
        "prototypes": "memory",
        "aux_loss": "scdl",
        "guidance": "psa",
        "weight_average": 0.9,
    }
    done = _torchrun(folder, "two", settings)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = _learnt(folder, "two", 0), _learnt(folder, "two", 1)
    assert any(name.startswith("prototype ") for name in first)
    assert {"memory.items", "fusion.queries", "distributions.mean"} <= set(first)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    history = (folder / "two" / "history.csv").read_text().splitlines()
    assert len(history) == 25


def test_a_rank_that_dies_ends_the_job_and_it_resumes(folder: Path) -> None:
    settings = {"iterations": 16, "checkpoint_every": 4, "validate_every": 8}
    whole = _torchrun(folder, "whole", settings)
    assert whole.returncode == 0, whole.stderr[-3000:]
    died = _torchrun(folder, "cut", {**settings, "die": 1})
    assert died.returncode != 0
    resumed = _torchrun(folder, "cut", {})
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    for rank in range(2):
        for name, tensor in _learnt(folder, "whole", rank).items():
            assert torch.equal(tensor, _learnt(folder, "cut", rank)[name]), name


def test_one_process_of_torchrun_is_a_run_as_any_other(folder: Path) -> None:
    done = _torchrun(folder, "single", {"iterations": 6}, processes=1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert resume(folder / "single").iterations == 6
