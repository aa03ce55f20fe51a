"""Fixtures of the library's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors are slower on several threads, and one thread makes sums repeatable."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], dict[str, Any]]:
    """A run folder with a trained model, the events of its training, and its arguments."""
    from job_inputs import run, training_arguments

    folder = tmp_path_factory.mktemp("trained")
    arguments = training_arguments(folder / "cases", folder / "run")
    result, events = run("train", **arguments)
    assert result.exit_code == 0, events[-1]
    return folder / "run", events, arguments
