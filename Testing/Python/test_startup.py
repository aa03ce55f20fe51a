"""A job imports what it needs: no torch to read a card, no MONAI and no compiler for one crop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from house import ROOT
from synthetic import write_cases
from test_house_arrows import HEAVY

from ForgettableSegLib.worker.process import _WARM_MODULES

# What other packages bring along unasked, each a tenth of a second to three seconds.
UNASKED = {"monai", "matplotlib", "pandas", "sklearn", "ignite", "torch._dynamo", "torch._inductor", "scipy.stats"}
# What a job of the card's alone has no use for.
NUMERIC = {"numpy", "scipy", "SimpleITK", "safetensors"}


def imported_by(code: str) -> set[str]:
    """Names of all modules after `code` in a process of its own."""
    shown = f"import sys\n{code}\nprint('\\n' + ' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def imported_by_command(*arguments: str) -> set[str]:
    return imported_by(f"from ForgettableSegLib.cli import main\nassert main({list(arguments)!r}) == 0")


@pytest.mark.parametrize("arguments", [("models", "list"), ("models", "show", "hippocampus")])
def test_reading_cards_takes_the_standard_library_only(arguments: tuple[str, ...]) -> None:
    assert imported_by_command(*arguments) & (HEAVY | UNASKED | NUMERIC) == set()


def test_segmenting_a_crop_imports_nothing_unasked(tmp_path: Path) -> None:
    (case,) = write_cases(tmp_path / "cases", 1, shape=(20, 24, 20))
    image, output = str(case.images[0]), str(tmp_path / "out")
    loaded = imported_by_command("segment", image, "--model", "hippocampus", "--output", output, "--device", "cpu")
    assert "torch" in loaded
    assert loaded & UNASKED == set()


def test_a_warm_worker_has_what_the_first_job_needs_and_nothing_unasked() -> None:
    loaded = imported_by("\n".join(f"import ForgettableSegLib.{name}" for name in _WARM_MODULES))
    assert {"torch", "SimpleITK", "ForgettableSegLib.inference.predictor"} <= loaded
    assert loaded & UNASKED == set()


def test_a_mistyped_setting_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    arguments = ["train", str(tmp_path), "--run", str(tmp_path / "run"), "--set", "foo=1"]
    loaded = imported_by(f"from ForgettableSegLib.cli import main\nassert main({arguments!r}) == 2")
    assert loaded & (HEAVY | UNASKED) == set()
