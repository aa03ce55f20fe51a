"""Every kind of bad input has its own sentence and code, shows nobody a traceback, and leaves earlier results alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_files import FILES, LABELS
from bad_inputs import Row, make_good, make_model, refused
from bad_lists import LISTS, TASKS
from bad_models import MODELS
from bad_requests import LINES, Line
from bad_settings import COMMANDS, SETTINGS
from worker_process import WorkerProcess, ready_worker

ROWS = (*FILES, *LABELS, *LISTS, *TASKS, *MODELS, *SETTINGS, *COMMANDS)
LIKE = {row.name: row.like for row in ROWS if row.like}

_sentences: dict[str, str] = {}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model package."""
    return make_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    """A worker that is to outlive every bad line."""
    with ready_worker() as process:
        yield process


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_input_is_refused_well(
    row: Row,
    model: Path,
    tmp_path: Path,
    home: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    _sentences[row.name] = refused(row, make_good(tmp_path, model), home, capfd, monkeypatch)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_bad_line_is_refused_well(line: Line, worker: WorkerProcess) -> None:
    worker.send(line.content + b"\n")
    failed = worker.wait_for_kind("failed", timeout_s=20)
    assert failed["code"] == "REQUEST_INVALID"
    assert re.search(line.names, failed["text"]), failed["text"]
    assert "Traceback" not in failed["text"] + "".join(worker.log)
    assert worker.other_output == []
    assert worker.process.poll() is None
    _sentences[line.name] = failed["text"]


def test_different_input_is_told_in_different_words(capsys: pytest.CaptureFixture[str]) -> None:
    tried = [each.name for each in (*ROWS, *LINES)]
    assert len(set(tried)) == len(tried)
    assert set(LIKE.values()) <= set(tried)
    with capsys.disabled():
        print(f"\nbad inputs refused well: {len(_sentences)} of {len(tried)}")
    same = [
        (name, other)
        for index, name in enumerate(tried)
        for other in tried[:index]
        if _sentences.get(name, name) == _sentences.get(other, other) and LIKE.get(name, name) != LIKE.get(other, other)
    ]
    assert same == []
    assert len(tried) - len(LIKE) >= 60
