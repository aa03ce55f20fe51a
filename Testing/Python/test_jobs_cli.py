"""The command line: exit codes, what goes to which stream, no traceback, and nothing heavy before it is needed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from job_inputs import SETTINGS, make_cases, run, training_arguments
from synthetic import TASK
from worker_process import ROOT

from ForgettableSegLib.cli import main
from ForgettableSegLib.jobs.requests import REQUESTS

MODULE = (sys.executable, "-m", "ForgettableSegLib")


def listed(folder: Path, number: int) -> tuple[Path, Path]:
    """A case list and a task file."""
    cases = make_cases(folder / "cases", number)
    table, task = folder / "cases.csv", folder / "task.json"
    table.write_text(
        "\n".join(["id,image,label", *(f"{case['id']},{case['images'][0]},{case['label']}" for case in cases)])
    )
    task.write_text(json.dumps(TASK.to_dict()))
    return table, task


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ForgettableSegLib.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'monai', 'SimpleITK', 'numpy', 'scipy', 'open_clip'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert all(job in done.stdout for job in (*REQUESTS, "worker"))


WORKER_MODULES = ["protocol", "client", "runner", "process", "console"]
FRAME = ["jobs.requests", "jobs.job", "jobs.check", *(f"worker.{name}" for name in WORKER_MODULES)]


@pytest.mark.parametrize("module", FRAME)
def test_the_frame_of_the_jobs_loads_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, ForgettableSegLib.{module}\n"
        "print({'torch', 'monai', 'SimpleITK', 'numpy', 'scipy', 'psutil', 'tqdm'} & set(sys.modules))\n"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"


@pytest.mark.parametrize("job", [*REQUESTS, "worker"])
def test_every_job_has_its_help(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([job, "--help"])
    assert caught.value.code == 0
    assert "usage: forgettableseg" in capsys.readouterr().out


def test_one_case_validates_and_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, task = listed(tmp_path, 1)
    assert main(["validate", str(table), "--task", str(task)]) == 0
    captured = capsys.readouterr()
    *table_lines, last = captured.out.splitlines()
    assert last == "1 cases: 0 errors, 0 warnings."
    assert any(line.startswith("ball00  20 x 24 x 6") for line in table_lines)
    assert "validate: 1 of 1" in captured.err


def test_a_bad_case_exits_with_1_and_is_named_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, task = listed(tmp_path, 2)
    label = tmp_path / "cases" / "ball01_label.nii.gz"
    label.write_bytes(b"x")
    assert main(["validate", str(table), "--task", str(task)]) == 1
    assert f"error: case 'ball01': {label}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["segment", "in", "--model", "m", "--output", "o", "--device", "gpu"], "'device'"),
        (["segment", "in", "--model", "m", "--output", "o", "--region", "5", "0", "0", "1", "1", "1"], "'region'"),
        (["segment", "no such input", "--model", "m", "--output", "o"], "no such input does not exist"),
        (["train", "data", "--run", "r", "--set", "rho"], "NAME=VALUE"),
        (["train", "data", "--run", "r", "--set", "roh=1"], "'roh'"),
        (["train", "data", "--run", "r", "--preset", "best"], "'preset'"),
        (["train", "data", "--run", "r", "--patch-size", "2", "2"], "'patch_size'"),
        (["evaluate", "--output", "o"], "'predictions' and 'references'"),
        (["models", "show"], "'name'"),
        (["models", "install", "no such file"], "no such file"),
        (["resume", "no such run"], "no such run"),
    ],
)
def test_a_bad_request_exits_with_2_and_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.startswith("Error: ")
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["segment"], ["models", "burn"], ["train", "x", "--run", "r", "--epochs", "many"]]
)
def test_a_wrong_command_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_training_flags_become_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, task = listed(tmp_path, 6)
    names = ("features", "num_heads", "batch_size", "text", "validate_every")
    others = [f"--set={name}={json.dumps(SETTINGS[name])}" for name in names]
    flags = ["--preset", "paper", "--patch-size", "16", "16", "--iterations", "2", "--seed", "3", "--device", "cpu"]
    arguments = ["train", str(table), "--task", str(task), "--run", str(tmp_path / "run"), *flags, *others]
    assert main(arguments) == 0, capsys.readouterr().err
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    asked = {"preset": "paper", "patch_size": [16, 16], "iterations": 2, "seed": 3, "isotropic": True}
    assert asked.items() <= settings.items()
    assert {name: SETTINGS[name] for name in names}.items() <= settings.items()
    assert str(tmp_path / "run" / "model") in capsys.readouterr().out


def test_json_prints_an_event_a_line_and_nothing_else(tmp_path: Path) -> None:
    table, task = listed(tmp_path, 1)
    done = subprocess.run(
        [*MODULE, "validate", str(table), "--task", str(task), "--json"], cwd=ROOT, capture_output=True, text=True
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["started", "done"]
    assert done.returncode == 0


def test_json_tells_of_a_bad_request_too() -> None:
    done = subprocess.run([*MODULE, "models", "show", "--json"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert json.loads(done.stdout)["code"] == "REQUEST_INVALID"
    assert done.stderr.startswith("Error: ")


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_a_signal_cancels_and_exits_with_130(name: str, tmp_path: Path) -> None:
    arguments = training_arguments(tmp_path / "cases", tmp_path / "run")
    table = tmp_path / "cases.csv"
    rows = [f"{case['id']},{case['images'][0]},{case['label']}" for case in arguments["cases"]]
    table.write_text("\n".join(["id,image,label", *rows]))
    (tmp_path / "task.json").write_text(json.dumps(arguments["task"]))
    settings = [f"--set={key}={json.dumps(value)}" for key, value in {**SETTINGS, "iterations": 100_000}.items()]
    command = [*MODULE, "train", str(table), "--task", str(tmp_path / "task.json"), "--run", str(tmp_path / "run")]
    process = subprocess.Popen([*command, *settings], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not any((tmp_path / "run").glob("checkpoint/[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"forgettableseg resume '{tmp_path / 'run'}'" in stderr
    assert "Traceback" not in stderr


def test_on_a_terminal_progress_is_a_bar(tmp_path: Path) -> None:
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    table, task = listed(tmp_path, 1)
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    command = [*MODULE, "validate", str(table), "--task", str(task)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=terminal, text=True)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes any more
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    assert done.returncode == 0
    assert b"100%|" in shown
    assert done.stdout.splitlines()[-1] == "1 cases: 0 errors, 0 warnings."


@pytest.mark.slow
def test_under_torchrun_the_ranks_share_the_cases_and_one_writes_the_summary(tmp_path: Path) -> None:
    run("train", **training_arguments(tmp_path / "training", tmp_path / "run"))
    table, _ = listed(tmp_path, 5)
    (tmp_path / "cases" / "ball03.nii.gz").write_bytes(b"damaged")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    model, output = str(tmp_path / "run" / "model"), tmp_path / "out"
    command = [*launcher, "-m", "ForgettableSegLib", "segment", str(table), "--model", model, "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    rows = json.loads((output / "summary.json").read_text())["cases"]
    assert [row["case"] for row in rows] == [f"ball{number:02d}" for number in range(5)]
    assert [row["status"] for row in rows] == ["done", "done", "done", "failed", "done"]
    assert sorted(path.name for path in output.iterdir() if path.is_dir()) == ["ball00", "ball01", "ball02", "ball04"]
    assert done.stdout.count("Segmented 4 of 5 cases") == 1
    assert done.returncode == 1
    assert not list(output.glob(".*"))
