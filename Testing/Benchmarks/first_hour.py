"""The first hour of a new user: the commands of the README from an empty environment, with what each took and gave.

    python Testing/Benchmarks/first_hour.py [--python PATH] [--data ../shared/data] [--minutes 4]

Without `--python` an environment is made in a temporary folder and the project is installed into it with pip. Commands
that need data are left out where it is absent. Prints a Markdown table; nothing here is a timed test.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = "dicom,report"


@dataclass(frozen=True)
class Step:
    """One command.

    Args:
        title: what a user wants.
        arguments: after ``forgettableseg``.
        expected: exit code that a user would call right.
    """

    title: str
    arguments: tuple[str, ...]
    expected: int = 0


def main() -> int:
    """Run everything and print the table; the exit code tells whether every outcome was the expected one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", type=Path, help="of an environment that holds the project (default: a new one)")
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of data (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=4, help="of each training (default: %(default)s)")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = options.python
        if python is None:
            started = time.monotonic()
            python = install(folder / "environment")
            rows.append(("install into an empty environment", time.monotonic() - started, "done"))
        for step in steps(folder, options.data, options.minutes):
            rows.append(do(step, python, folder))
            print(f"{rows[-1][0]}: {rows[-1][1]:.1f} s, {rows[-1][2]}", file=sys.stderr, flush=True)
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end\n")
    print("| what | seconds | outcome |\n| --- | --- | --- |")
    for title, seconds, outcome in rows:
        print(f"| {title} | {seconds:.1f} | {outcome} |")
    return int(any(outcome.startswith("WRONG") for _, _, outcome in rows))


def install(folder: Path) -> Path:
    """A new environment with the project and the extras that the commands use; its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[{EXTRAS}]"], check=True)
    return python


def steps(folder: Path, data: Path, minutes: float) -> Iterator[Step]:
    """The commands, those first that need no data."""
    yield Step("see what is installed", ("check", "--device", "cpu"))
    yield Step("list the models", ("models", "list"))
    yield Step("show a model", ("models", "show", "hippocampus"))
    yield Step("mistype a setting", ("train", str(folder), "--run", str(folder / "r"), "--set", "foo=1"), 2)
    crops, series, abdomen = data / "Hippocampus", data / "DicomBrain" / "HippocampusCrop", data / "AbdomenMR"
    model = ("--model", "hippocampus")
    if crops.is_dir():
        crop = sorted((crops / "imagesTr").glob("*.nii.gz"))[0]
        yield Step("segment a crop", ("segment", str(crop), *model, "--output", str(folder / "crop"), "--preview"))
        yield Step("validate 200 cases", ("validate", str(crops)))
        few = few_cases(crops, folder / "few.json", 8)
        yield Step("audit 8 cases", ("audit", few, *model, "--output", str(folder / "audit")))
        run = str(folder / "finetuned")
        yield Step("fine-tune on 8 cases", ("finetune", few, *model, "--run", run, "--minutes", str(minutes)))
        yield Step("draw its figures", ("figures", run, "--output", str(folder / "figures")))
        report = str(folder / "report")
        yield Step("evaluate it", ("evaluate", "--model", f"{run}/model", "--cases", few, "--output", report))
    if series.is_dir():
        output = str(folder / "dicom")
        yield Step(
            "segment a DICOM series", ("segment", str(series), *model, "--output", output, "--format", "dicom-seg")
        )
    if abdomen.is_dir():
        run = str(folder / "abdomen")
        yield Step("validate 14 abdomens", ("validate", str(abdomen)))
        yield Step(
            f"train {minutes:g} minutes on them", ("train", str(abdomen), "--run", run, "--minutes", str(minutes))
        )


def few_cases(crops: Path, path: Path, number: int) -> str:
    """A datalist of some cases of a data set."""
    images = sorted((crops / "imagesTr").glob("*.nii.gz"))[:number]
    listed = [{"image": str(image), "label": str(crops / "labelsTr" / image.name)} for image in images]
    content = {"labels": {"1": "anterior hippocampus", "2": "posterior hippocampus"}, "modality": {"0": "MR"}}
    path.write_text(json.dumps({**content, "training": listed}), encoding="utf-8")
    return str(path)


def do(step: Step, python: Path, folder: Path) -> tuple[str, float, str]:
    """Run a command as a user would; its title, seconds, and what its last words were."""
    started = time.monotonic()
    # Not from the clone: what is installed is what is tried.
    done = subprocess.run(
        [python, "-m", "ForgettableSegLib", *step.arguments], cwd=folder, capture_output=True, text=True
    )
    seconds = time.monotonic() - started
    words = [line for line in (done.stdout if done.returncode == 0 else done.stderr).splitlines() if line.strip()]
    last = words[-1].replace("|", "/").replace(str(folder), "") if words else "no word"
    right = "" if done.returncode == step.expected else f"WRONG exit {done.returncode}, not {step.expected}: "
    return step.title, seconds, right + last


if __name__ == "__main__":
    sys.exit(main())
