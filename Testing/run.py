#!/usr/bin/env python3
"""Runs the demo, the tests or the linter from a fresh clone, in an environment that it makes itself.

    python3 Testing/run.py demo [--output FOLDER]
    python3 Testing/run.py tests [pytest arguments]
    python3 Testing/run.py slow [pytest arguments]
    python3 Testing/run.py lint

It needs Python 3.11 or later with pip, and nothing else: only the standard library is imported here. The environment
lies in `.venv` inside the clone and is used again until the requirements or the Python version change.
The tests run on all processors; `tests -n 0` runs them one after the other, `tests -p randomly` in random order.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".venv"
CONSTRAINTS = ROOT / "Testing" / "constraints.txt"
OLDEST_PYTHON = (3, 11)
NEEDED_GIB = 3
DEMO_EXTRAS = ("demo", "report", "slicer")
TEST_EXTRAS = (*DEMO_EXTRAS, "dicom", "guidance", "dev")
HEARTBEAT_SECONDS = 30
LOG_LINES = 25

# One process for each processor; a process that has no tests left takes over some of another's.
PARALLEL = ["-n", "auto", "--dist", "worksteal"]
# For each command: the extras it needs, and what is run with the environment's Python.
COMMANDS = {
    "demo": (DEMO_EXTRAS, ["Testing/demo.py"]),
    "tests": (TEST_EXTRAS, ["-m", "pytest", *PARALLEL]),
    "slow": (TEST_EXTRAS, ["-m", "pytest", "-m", "slow"]),
    "lint": (TEST_EXTRAS, ["-m", "ruff", "check", "."]),
}


class SetupError(Exception):
    """The environment cannot be made; the text says why and what to do."""


def say(text: str) -> None:
    """Print one line at once, so that the lines of child processes stay in order."""
    print(text, flush=True)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Say what begins, and how long it took when it has ended."""
    say(f"== {title}")
    begin = time.monotonic()
    try:
        yield
    finally:
        say(f"== {title}: {time.monotonic() - begin:.0f} s")


def clean_environment() -> dict[str, str]:
    """The caller's environment variables without those that would mix another Python's packages into ours."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def environment_folder() -> Path:
    """Where the environment for this Python and these requirements lies; the name changes with either."""
    digest = hashlib.sha256()
    for part in ((ROOT / "pyproject.toml").read_bytes(), CONSTRAINTS.read_bytes(), str(ROOT).encode()):
        digest.update(part)
    digest.update(f"{sys.version}{platform.machine()}".encode())
    return ENVIRONMENTS / f"python{sys.version_info[0]}.{sys.version_info[1]}-{digest.hexdigest()[:12]}"


def environment_python(folder: Path) -> Path:
    """The interpreter inside an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def installed_extras(folder: Path) -> set[str] | None:
    """The extras that a finished environment holds, or None where it was never finished."""
    try:
        return set(json.loads((folder / "installed.json").read_text(encoding="utf-8"))["extras"])
    except (OSError, ValueError, KeyError):
        return None


@contextlib.contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Wait while another run in the same clone is making the environment."""
    try:
        import fcntl
    except ImportError:  # Windows: two first runs at once are left to the user
        yield
        return
    with (ENVIRONMENTS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("   another run is making the environment; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_logged(command: list[str], log: Path, failure: str) -> None:
    """Run a long command with its output in a file, and a line now and then to show that it lives.

    Raises:
        SetupError: if it fails, with the command and the last lines of what it wrote.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        begin = time.monotonic()
        try:
            while True:
                try:
                    code = process.wait(timeout=HEARTBEAT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    say(f"   still at it after {time.monotonic() - begin:.0f} s")
        except BaseException:
            process.kill()
            process.wait()
            raise
    if code:
        where = f"   command: {shlex.join(command)}\n   log:     {log}"
        raise SetupError(f"{failure}\n{where}\n{last_lines(log, LOG_LINES)}")


def last_lines(log: Path, count: int) -> str:
    """The end of a log, whatever its encoding."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"   | {line}" for line in lines[-count:])


def make_environment(folder: Path) -> list[str]:
    """Make an empty environment and return the command that installs into it.

    A Python without `ensurepip` (Debian's, for one) can still fill an environment with its own pip from outside.
    """
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    if not has_ensurepip and importlib.util.find_spec("pip") is None:
        raise SetupError(
            f"{sys.executable} has neither pip nor ensurepip, so packages cannot be installed. "
            "Install them (on Debian and Ubuntu: apt-get install python3-venv python3-pip), then run this again."
        )
    command = [sys.executable, "-m", "venv", *([] if has_ensurepip else ["--without-pip"]), str(folder)]
    run_logged(command, ENVIRONMENTS / "venv.log", "The environment could not be made.")
    python = str(environment_python(folder))
    return [python, "-m", "pip"] if has_ensurepip else [sys.executable, "-m", "pip", "--python", python]


def pip_of(folder: Path) -> list[str]:
    """The command that installs into an environment that exists already."""
    python = str(environment_python(folder))
    inside = subprocess.run([python, "-c", "import pip"], env=clean_environment(), stderr=subprocess.DEVNULL)
    return [python, "-m", "pip"] if inside.returncode == 0 else [sys.executable, "-m", "pip", "--python", python]


def prepare(extras: tuple[str, ...]) -> Path:
    """Return the Python of an environment that holds the project and `extras`, made or completed where needed."""
    folder = environment_folder()
    try:
        ENVIRONMENTS.mkdir(exist_ok=True)
    except OSError as error:
        raise SetupError(f"{ENVIRONMENTS} cannot be made ({error.strerror}); the clone must be writable.") from error
    with only_one_at_a_time():
        present = installed_extras(folder)
        python = environment_python(folder)
        if present is not None and present.issuperset(extras) and python.exists():
            say(f"== environment: {folder.relative_to(ROOT)} is used again")
            return python
        if present is None or not python.exists():
            present = set()
            remove_outdated(folder)
            free = shutil.disk_usage(ROOT).free / 2**30
            if free < NEEDED_GIB:
                raise SetupError(f"{ROOT} has {free:.1f} GiB free, and the environment needs about {NEEDED_GIB} GiB.")
            with step(f"making the environment {folder.relative_to(ROOT)} with Python {platform.python_version()}"):
                pip = make_environment(folder)
        else:
            pip = pip_of(folder)
        wanted = sorted(present.union(extras))
        with step("installing the project and its requirements (the first time this takes some minutes)"):
            requirement = f"{ROOT}[{','.join(wanted)}]"
            command = [*pip, "install", "--no-input", "--disable-pip-version-check"]
            command += ["--constraint", str(CONSTRAINTS), "--editable", requirement]
            run_logged(command, folder / "pip.log", "The requirements could not be installed; pip says why:")
        (folder / "installed.json").write_text(json.dumps({"extras": wanted}) + "\n", encoding="utf-8")
    return python


def remove_outdated(folder: Path) -> None:
    """Remove the half-made environment at `folder` and finished ones of the same Python for older requirements."""
    python, _, _ = folder.name.rpartition("-")
    for old in ENVIRONMENTS.glob(f"{python}-*"):
        say(f"   removing {old.relative_to(ROOT)}, which is half-made or out of date")
        shutil.rmtree(old)


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit status of what was run, or 2 for a wrong call or a failed installation."""
    if not arguments or arguments[0] not in COMMANDS:
        say((__doc__ or "").strip())
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    if sys.version_info < OLDEST_PYTHON:
        say(
            f"ForgettableSeg needs Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or later, and this is {sys.executable} "
            f"({platform.python_version()}). Call this script with a newer one, for example: python3.11 Testing/run.py"
        )
        return 2
    extras, call = COMMANDS[arguments[0]]
    begin = time.monotonic()
    try:
        python = prepare(extras)
        with step(arguments[0]):
            command = [str(python), *call, *arguments[1:]]
            code = subprocess.run(command, cwd=ROOT, env=clean_environment()).returncode
    except SetupError as error:
        say(f"!! {error}")
        return 2
    except KeyboardInterrupt:
        say("!! stopped by the user")
        return 130
    result = "finished" if code == 0 else f"failed with exit status {code}"
    say(f"== {arguments[0]} {result}, {time.monotonic() - begin:.0f} s in all")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
