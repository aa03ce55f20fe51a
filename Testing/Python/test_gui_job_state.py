"""What the events of a job mean for the person at the screen: how far it is, how long it still takes, how it ended."""

from __future__ import annotations

import pytest
from ForgettableSegGUI import job_state
from ForgettableSegGUI.job_state import JobState


def test_progress_tells_phase_case_and_remaining_time() -> None:
    state = JobState("Segmenting")
    assert state.text() == "Segmenting"
    assert state.fraction() is None
    state.hear({"event": "progress", "phase": "segment", "step": 1.5, "of": 4, "eta_s": 95, "case": "c2"})
    assert state.text() == "Segmenting · c2 · 2 of 4 · 2 min left"
    assert state.fraction() == 0.375


def said(state: JobState, phase: str, step: int, eta: float | None, of: int = 100) -> str:
    """What is said of the time that is left, after one more event."""
    state.hear({"event": "progress", "phase": phase, "step": step, "of": of, "eta_s": eta})
    return job_state.remainingText(state.left)


def test_the_time_left_is_not_said_too_early_and_never_grows() -> None:
    state = JobState("Segmenting")
    assert said(state, "segment", 1, 52) == "", "after so little the estimate is worth nothing"
    assert said(state, "segment", 10, 52) == "52 s left"
    assert said(state, "segment", 20, 60) == "52 s left"
    assert said(state, "segment", 30, 180) == "", "nothing is better than what is wrong"
    assert said(state, "segment", 60, 40) == "40 s left"


def test_the_time_of_a_preparation_is_not_taken_for_that_of_the_job() -> None:
    state = JobState("Training")
    assert said(state, "prepare train cases", 2, 3, of=4) == ""
    assert said(state, "prepare", 8, 1, of=10) == ""
    assert said(state, "train", 300, 500, of=900) == "8 min left"
    assert said(state, "calibrate", 1, 900, of=2) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.2, "1 s left"), (59, "59 s left"), (61, "1 min left"), (7260, "2 h 1 min left")],
)
def test_remaining_time_in_words(seconds: float | None, text: str) -> None:
    assert job_state.remainingText(seconds) == text


def test_every_end_of_a_job_leaves_one_sentence() -> None:
    ends = {
        "Finished.": {"event": "done", "exit_code": 0, "result": {}},
        "Finished, but some cases failed.": {"event": "done", "exit_code": 1, "result": {}},
        "The model is gone. Import it.": {
            "event": "failed",
            "code": "MODEL_MISSING",
            "text": "The model is gone.",
            "hint": "Import it.",
            "log": "",
        },
        "Cancelled.": {"event": "cancelled", "resumable": None},
        "Cancelled. The run is kept and can be resumed.": {"event": "cancelled", "resumable": "run"},
    }
    for sentence, event in ends.items():
        state = JobState("x")
        state.hear(event)
        assert (state.running, state.text()) == (False, sentence)


def test_warnings_and_failed_cases_are_shown_once() -> None:
    state = JobState("x")
    for _twice in range(2):
        state.hear({"event": "warning", "text": "Spacing is odd.", "case": "c1"})
    state.hear({"event": "case_failed", "case": "c2", "text": "It is damaged.", "code": "FILE_UNREADABLE"})
    state.hear({"event": "done", "exit_code": 1, "result": {}})
    assert state.text().splitlines()[1:] == ["c1: Spacing is odd.", "c2: It is damaged."]
