"""Learning from cases without labels beside those with: two views, the average as teacher, and runs of both."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import write_cases
from training_cases import Listener, assert_same, resume, train

from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.cases.split import Split
from ForgettableSegLib.errors import Cancelled
from ForgettableSegLib.network.distributions import Tokens
from ForgettableSegLib.training.consistency import consistency_loss, ramp_up, token_consistency
from ForgettableSegLib.training.run import TrainingOutcome

UNLABELLED = {"unlabelled_ratio": 0.5, "weight_average": 0.9, "aux_loss": "scdl", "iterations": 8, "validate_every": 4}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> CaseList:
    """Six cases, the last two of which have no label."""
    listed = write_cases(tmp_path_factory.mktemp("cases"), 6, shape=(4, 20, 18))
    unlabelled = tuple(dataclasses.replace(case, label=None) for case in listed.cases[4:])
    return dataclasses.replace(listed, cases=(*listed.cases[:4], *unlabelled))


def run(cases: CaseList, folder: Path, listener: Listener | None = None, **settings: object) -> TrainingOutcome:
    """A small training with two cases, one to validate and one held out."""
    ids = [case.case_id for case in cases]
    split = Split(tuple(ids[:2]), (ids[2],), (ids[3],))
    return train(cases, folder, listener, split=split, settings={**UNLABELLED, **settings})


def test_the_ramp_rises_from_next_to_nothing_to_one() -> None:
    assert ramp_up(0, 0.4) == pytest.approx(np.exp(-5))
    assert ramp_up(0.2, 0.4) == pytest.approx(np.exp(-5 / 4))
    assert ramp_up(0.4, 0.4) == ramp_up(1, 0.4) == ramp_up(0, 0) == 1


def test_consistency_by_hand_and_only_inside_the_case() -> None:
    logits = torch.tensor([[[0.0, 0.0]], [[0.0, 100.0]]]).movedim(0, 1)[..., None]  # (1, 2, 2, 1)
    teacher = torch.zeros_like(logits)
    valid = torch.ones(1, 2, 1, dtype=torch.bool)
    assert consistency_loss(logits, logits, valid) == 0
    assert consistency_loss(logits, teacher, valid) == pytest.approx((0 + 0.5) / 2)
    valid[0, 1] = False
    assert consistency_loss(logits, teacher, valid) == 0
    # No gradient to the teacher; one to the network.
    for each in (logits, teacher):
        each.requires_grad_()
    consistency_loss(logits + 1, teacher, ~valid).backward()
    assert teacher.grad is None
    assert logits.grad is not None


def test_blocks_outside_of_the_case_draw_no_tokens() -> None:
    valid = torch.zeros(1, 8, 8, dtype=torch.bool)
    valid[0, :4, :4] = True
    student, teacher = torch.rand(1, 3, 4), torch.rand(1, 3, 4)
    loss = token_consistency(Tokens(student, student), Tokens(teacher, teacher), valid)
    changed = student.clone()
    changed[..., 1:] = -1
    assert token_consistency(Tokens(changed, changed), Tokens(teacher, teacher), valid) == loss
    changed[..., 0] = -1
    assert token_consistency(Tokens(changed, changed), Tokens(teacher, teacher), valid) != loss


def test_cases_without_labels_are_learnt_from_and_the_run_resumes_bit_for_bit(cases: CaseList, tmp_path: Path) -> None:
    whole = run(cases, tmp_path / "whole")
    with pytest.raises(Cancelled):
        run(cases, tmp_path / "cut", Listener(stop_at=3))
    assert_same(whole, resume(tmp_path / "cut"))
    history = (tmp_path / "whole" / "history.csv").read_text()
    assert history == (tmp_path / "cut" / "history.csv").read_text()
    column = history.splitlines()[0].split(",").index("consistency_loss")
    assert all(float(row.split(",")[column]) > 0 for row in history.splitlines()[1:])
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert set(config["contents"]) >= {case.case_id for case in cases.cases[4:]}
    # Without weight they change nothing, and nobody who does not ask for them reads them.
    weightless = run(cases, tmp_path / "weightless", aux_loss="none", consistency_weight=0.0)
    alone = run(cases, tmp_path / "alone", aux_loss="none", unlabelled_ratio=0.0)
    assert_same(weightless, alone)
    assert len(alone.config.cases) == 4


def test_a_ratio_without_such_cases_is_told_of(cases: CaseList, tmp_path: Path) -> None:
    listener = Listener()
    labelled = dataclasses.replace(cases, cases=cases.cases[:4])
    run(labelled, tmp_path / "run", listener, iterations=1)
    assert any("no case without a label" in text for text in listener.texts)
