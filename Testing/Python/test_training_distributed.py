"""Two processes under torchrun, over gloo on the CPU: they agree, they never wait for ever, and they resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_run import main
from synthetic import read_cases, write_cases
from training_cases import resume, train, weights

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


# Each rank draws its own augmentation, so two processes learn what one does only without it.
UNMINED = {"pbs": False, "fsb": False, "iterations": 8, "validate_every": 8, "learning_rate": 0.005}
UNMINED |= {"augmentation": False, "spatial_augmentation": False, "aux_loss": "scdl"}
# A bank fills at its own speed on each rank: replay is decided together, or one would wait for the other.
MINED = {"iterations": 24, "replay_every": 1, "allow_partial": False, "batch_size": 4}
# What is learnt of the classes and of the cases is written by each rank, and must be the same.
MINED |= {"memory": "class", "prototypes": "memory", "aux_loss": "scdl", "guidance": "psa", "weight_average": 0.9}
WHOLE = {"iterations": 16, "checkpoint_every": 4, "validate_every": 8}


def _torchrun(folder: Path, runs: dict[str, dict]) -> subprocess.CompletedProcess[str]:
    arguments = ["--standalone", "--nproc-per-node", "2", str(HERE / "distributed_run.py")]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments, str(folder), json.dumps(runs)],
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases and what two processes learnt from them in one start of torchrun, in whose last run a rank dies."""
    folder = tmp_path_factory.mktemp("distributed")
    write_cases(folder / "cases", 6)
    runs = {"unmined": UNMINED, "mined": MINED, "whole": WHOLE, "cut": {**WHOLE, "die": 1}}
    died = _torchrun(folder, runs)
    assert died.returncode != 0
    assert (folder / "whole-rank0.pt").is_file(), died.stderr[-3000:]
    return folder


def test_without_mining_two_processes_learn_what_one_learns(folder: Path) -> None:
    alone = weights(train(read_cases(folder / "cases"), folder / "one", settings=UNMINED))
    for name, tensor in _learnt(folder, "unmined", 0).items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-3, atol=1e-5, msg=name)


def test_with_mining_the_ranks_share_prototypes_and_weights_and_none_waits_for_ever(folder: Path) -> None:
    first, second = _learnt(folder, "mined", 0), _learnt(folder, "mined", 1)
    assert any(name.startswith("prototype ") for name in first)
    assert {"memory.items", "fusion.queries", "distributions.mean"} <= set(first)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    history = (folder / "mined" / "history.csv").read_text().splitlines()
    assert len(history) == 1 + MINED["iterations"]


def test_a_rank_that_dies_ends_the_job_and_it_resumes(folder: Path) -> None:
    assert not list(folder.glob("cut-rank*.pt"))
    resumed = _torchrun(folder, {"cut": {}})
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    for rank in range(2):
        for name, tensor in _learnt(folder, "whole", rank).items():
            assert torch.equal(tensor, _learnt(folder, "cut", rank)[name]), name


def test_one_process_of_torchrun_is_a_run_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What torchrun tells its only process; at port 0 the process takes a free one.
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in {**alone, "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    write_cases(tmp_path / "cases", 6)
    main(tmp_path, {"single": {"iterations": 6}})
    assert resume(tmp_path / "single").iterations == 6
