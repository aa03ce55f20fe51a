"""Runs and models of versions that did not know the newest settings go on as if they had the defaults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic import write_cases
from training_cases import Listener, assert_same, resume, train

from ForgettableSegLib.errors import Cancelled
from ForgettableSegLib.training.checkpoint import CheckpointFolder

LATER_SETTINGS = ("admission_window", "architecture", "context_slices", "mirror_axes", "aux_loss", "prototypes")
LATER_ARGUMENTS = ("architecture", "window", "context_slices", "mirror_axes", "members", "distributions")


def test_an_older_run_is_resumed(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "cases", 6, shape=(6, 20, 18))
    settings = {"iterations": 12}
    whole = train(cases, tmp_path / "whole", settings=settings)
    run = tmp_path / "cut"
    with pytest.raises(Cancelled):
        train(cases, run, Listener(stop_at=7), settings=settings)
    config = json.loads((run / "config.json").read_text())
    for names, part in ((LATER_SETTINGS, "settings"), (LATER_ARGUMENTS, "network")):
        for name in names:
            del config[part][name]
    (run / "config.json").write_text(json.dumps(config))
    checkpoints = CheckpointFolder(run / "checkpoint")
    state = checkpoints.load(pytest.fail)
    for name in LATER_SETTINGS:
        del state["settings"][name]
    for file in checkpoints.files():
        file.unlink()
    checkpoints.save(state, state["iteration"])
    assert_same(whole, resume(run))
