"""What the documentation says of errors, requests and events is what the code knows."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields

from worker_process import ROOT

from ForgettableSegLib.cases.findings import FindingCode
from ForgettableSegLib.errors import ErrorCode
from ForgettableSegLib.jobs.requests import REQUESTS
from ForgettableSegLib.training.settings import CHOICES, PRESETS, RANGES, TrainingSettings
from ForgettableSegLib.worker.protocol import EVENT_FIELDS, PREFIX, REQUEST_KINDS

ERRORS = (ROOT / "Documentation" / "errors.md").read_text(encoding="utf-8")
PROTOCOL = (ROOT / "Documentation" / "protocol.md").read_text(encoding="utf-8")


def rows(text: str, title: str = "") -> dict[str, str]:
    """The rows of the first table below a title: first cell (in backquotes) to the others."""
    part = text.split(f"## {title}\n")[1].split("\n## ")[0] if title else text
    return {name: rest for name, rest in re.findall(r"^\| `(\w+)` \| ?(.*)\|$", part, flags=re.MULTILINE)}


def test_every_error_code_is_explained_and_no_other() -> None:
    found = rows(ERRORS.partition("\n## ")[0])
    assert set(found) == {str(code) for code in ErrorCode}
    assert set(rows(ERRORS, "Findings")) <= {str(code) for code in FindingCode}
    assert all(len(rest.split("|")) == 2 and all(cell.strip() for cell in rest.split("|")) for rest in found.values())


def test_every_request_and_event_is_explained_and_no_other() -> None:
    assert set(rows(PROTOCOL, "Requests")) == set(REQUEST_KINDS)
    assert set(rows(PROTOCOL, "Events")) == set(EVENT_FIELDS)
    assert f"prefix `{PREFIX}`" in PROTOCOL


def test_every_field_of_an_event_is_named() -> None:
    for kind, rest in rows(PROTOCOL, "Events").items():
        assert set(EVENT_FIELDS[kind]) <= set(re.findall(r"`(\w+)`", rest)), kind


def test_every_argument_of_a_job_is_named_and_whether_it_may_be_left_out() -> None:
    documented = rows(PROTOCOL, "Jobs")
    assert set(documented) == set(REQUESTS)
    for job, rest in documented.items():
        named = re.findall(r"`(\w+)`", rest)
        assert sorted(named) == sorted(each.name for each in fields(REQUESTS[job])), job
        needed = [each.name for each in fields(REQUESTS[job]) if each.default is each.default_factory is MISSING]
        assert not set(needed) & set(re.findall(r"`(\w+)`\?", rest)), job


def test_every_training_setting_is_explained_with_its_values() -> None:
    found = rows((ROOT / "Documentation" / "settings.md").read_text(encoding="utf-8"))
    recommended, paper = (TrainingSettings.from_dict({"preset": preset}).to_dict() for preset in PRESETS)
    assert set(found) == set(recommended)
    for name, rest in found.items():
        own, of_paper, allowed, meaning = (cell.strip() for cell in rest.split("|"))
        assert json.loads(own.strip("`")) == recommended[name], name
        assert json.loads(of_paper.strip("`") or own.strip("`")) == paper[name], name
        assert bool(of_paper) == (paper[name] != recommended[name]), name
        assert tuple(re.findall(r"`(\w+)`", allowed)) == CHOICES.get(name, ()), name
        ends = tuple(float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:e-\d+)?", allowed))
        limits = RANGES.get(name, ())
        assert name in CHOICES or ends == tuple(limit for limit in limits if limit is not None), name
        assert meaning, name
