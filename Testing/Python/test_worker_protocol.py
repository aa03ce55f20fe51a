"""Lines to and from the worker: what goes in comes out, and nothing else is taken for it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.plain import plain
from ForgettableSegLib.worker import protocol
from ForgettableSegLib.worker.protocol import (
    EVENT_FIELDS,
    PREFIX,
    encode_event,
    encode_request,
    parse_line,
    parse_request,
    request_id,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


@st.composite
def events(draw: st.DrawFn) -> dict:
    kind = draw(st.sampled_from(sorted(EVENT_FIELDS)))
    values = {name: draw(JSON) for name in (*EVENT_FIELDS[kind], "id", "time", "case")}
    return {"event": kind, **values}


@given(events())
def test_an_event_survives_its_line(event: dict) -> None:
    line = encode_event(event)
    assert line.startswith(PREFIX)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line.isascii()
    assert parse_line(line) == event
    assert parse_line(line.encode()) == event


@given(st.text(), st.text(min_size=1), st.dictionaries(st.text(), JSON))
def test_a_job_request_survives_its_line(identifier: str, job: str, arguments: dict) -> None:
    request = parse_request(encode_request("job", id=identifier, job=job, arguments=arguments))
    assert (request.request, request.id, request.job, request.arguments) == ("job", identifier, job, arguments)


@pytest.mark.parametrize("kind", [kind for kind in protocol.REQUEST_KINDS if kind != "job"])
def test_the_other_requests_survive_their_line(kind: str) -> None:
    request = parse_request(encode_request(kind, id="7"))
    assert (request.request, request.id, request.job, dict(request.arguments)) == (kind, "7", "", {})


def refusal(line: str | bytes) -> ForgettableSegError | None:
    """The error that refuses a line, if it is refused; any other error is raised."""
    try:
        parse_request(line)
    except ForgettableSegError as error:
        return error
    return None


@given(st.binary() | JSON.map(json.dumps))
def test_any_line_is_either_a_request_or_refused_by_a_sentence(line: str | bytes) -> None:
    error = refusal(line)
    if error is None:
        assert parse_request(line).request in protocol.REQUEST_KINDS
    else:
        assert error.code == ErrorCode.REQUEST_INVALID
        assert error.message.endswith(".")
    assert isinstance(request_id(line), str)


@given(st.text() | st.binary())
def test_log_text_is_not_taken_for_an_event(line: str | bytes) -> None:
    assert parse_line(line) is None


BROKEN = ["", "{", "[]", "3", '{"event": "joke"}', '{"event": ["log"]}', "[" * 100_000]


@pytest.mark.parametrize(
    "line",
    ["", "Epoch 3", '{"event": "paused"}', f' {PREFIX}{{"event": "paused"}}', *(PREFIX + text for text in BROKEN)],
)
def test_broken_events_are_log_text(line: str) -> None:
    assert parse_line(line) is None


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("", "JSON"),
        ("segment this", "JSON"),
        ('{"request": "job"', "JSON"),
        (b"\xff\xfe{}", "JSON"),
        ("[" * 100_000, "JSON"),
        ("1" * 10_000, "JSON"),
        ("[]", "object"),
        ("3", "object"),
        ("null", "object"),
        ("{}", "None"),
        ('{"request": "launch"}', "launch"),
        ('{"request": ["job"]}', "job"),
        ('{"request": "cancel", "job_id": "3"}', "job_id"),
        ('{"request": "cancel", "id": {"a": 1}}', "id"),
        ('{"request": "cancel", "id": true}', "id"),
        ('{"request": "job", "id": "1"}', "no job"),
        ('{"request": "job", "id": "1", "job": ""}', "no job"),
        ('{"request": "job", "id": "1", "job": 3}', "no job"),
        ('{"request": "job", "id": "1", "job": "check", "arguments": []}', "check"),
        ('{"request": "job", "id": "1", "job": "check", "arguments": null}', "check"),
        (f'{{"request": "{"x" * 10_000}"}}', "xxx..."),
    ],
)
def test_malformed_requests_are_refused_by_name(line: str | bytes, word: str) -> None:
    with pytest.raises(ForgettableSegError, match=word) as caught:
        parse_request(line)
    assert caught.value.code == ErrorCode.REQUEST_INVALID
    assert len(caught.value.message) < 300


def test_a_request_that_is_too_long_is_refused_unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_REQUEST_CHARACTERS", 2**20)
    with pytest.raises(ForgettableSegError, match="1 MiB"):
        parse_request(" " * (2**20 + 1))


def test_a_refused_request_keeps_its_id() -> None:
    assert request_id('{"request": "launch", "id": 12}') == "12"
    assert request_id("nonsense") == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Path("a") / "b", str(Path("a") / "b")),
        (math.nan, None),
        (-math.inf, None),
        ((1, (2,)), [1, [2]]),
        ({3, 1}, [1, 3]),
        (np.float32(0.5), 0.5),
        (np.int64(4), 4),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        (ErrorCode.INTERNAL, "INTERNAL"),
        ({1: {"a": np.bool_(True)}}, {"1": {"a": True}}),
    ],
)
def test_values_become_plain_json(value: object, expected: object) -> None:
    assert plain(value) == expected
    assert json.loads(json.dumps(plain(value))) == expected


def test_an_event_that_nobody_could_read_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="joke"):
        encode_event({"event": "joke"})
    with pytest.raises(ValueError, match="eta_s"):
        encode_event({"event": "progress", "phase": "a", "step": 1, "of": 2})
    with pytest.raises(TypeError, match="object"):
        encode_event({"event": "log", "text": object()})
    with pytest.raises(ValueError, match="launch"):
        encode_request("launch")
