"""Rows of bad input: lines to the worker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ForgettableSegLib.worker.protocol import MAX_REQUEST_CHARACTERS


@dataclass(frozen=True)
class Line:
    """One kind of bad line.

    Args:
        name: of the row.
        names: pattern of what the sentence must name.
        content: the line without its end.
    """

    name: str
    names: str
    content: bytes


def _job(name: str, names: str, job: Any, /, **arguments: Any) -> Line:
    content = {"request": "job", "id": "x", "job": job, "arguments": arguments}
    return Line(name, names, json.dumps(content).encode())


def _case(name: str, names: str, /, **case: Any) -> Line:
    return _job(name, names, "validate", cases=[{"id": "a", "images": ["i.nrrd"], **case}])


_SEGMENT = {"model": "m", "output": "o", "input": "i"}

LINES = (
    Line("line that is no JSON", "not one line of JSON", b"hello"),
    Line("line without an end", "longer than 64 MiB", b"9" * (MAX_REQUEST_CHARACTERS + 2)),
    Line("line is a list", "must be a JSON object", b"[1, 2]"),
    Line("unknown request", "'fly' is unknown", b'{"request": "fly", "id": "x"}'),
    Line("field of a request", "field 'when'", b'{"request": "warm", "when": 1}'),
    Line("id is an object", "id must be text", b'{"request": "cancel", "id": {}}'),
    Line("job without a name", "names no job", b'{"request": "job", "id": "x"}'),
    Line(
        "arguments are a list", "arguments of the job 'check'", b'{"request": "job", "job": "check", "arguments": []}'
    ),
    _job("unknown job", "no job 'dance'", "dance"),
    _job("unknown argument", "no argument 'gpu'", "check", gpu=1),
    _job("argument left out", "needs the argument 'run'", "resume"),
    _job("path is a number", "'run' of the job 'resume' must be text", "resume", run=3),
    _job("path with a zero", "'run' of the job 'resume' must hold no zero", "resume", run="a\0b"),
    _job("switch is text", "'heatmap'.*true or false", "segment", **_SEGMENT, heatmap="yes"),
    _job("unknown file format", r"'file_format'.*one of \.nrrd", "segment", **_SEGMENT, file_format=".bmp"),
    _job("device is a number", "'device' of the job 'check' must be auto", "check", device=0),
    _job("input and cases", "either the argument 'cases' or", "segment", **_SEGMENT, cases="c"),
    _job("no case", "'cases'.*not empty", "validate", cases=[]),
    _job("case is text", "case 1: it must be a JSON object", "validate", cases=["a.nrrd"]),
    _job("case twice", "the id 'a' twice", "validate", cases=[{"id": "a", "images": ["i"]}] * 2),
    _case("field of a case", "field 'age' is unknown", age=7),
    _case("id of a case leaves the folder", r"its id '\.\./a' cannot name a folder", id="../a"),
    _case("case of no images", "images of 'a' must be a list", images=[]),
    _case("label is a list", "label of 'a' must be text", label=[1]),
    _job("settings are a list", "'settings' of the job 'train'", "train", cases="c", run="r", settings=[1]),
    _job("task is a number", "'task' of the job 'train'", "train", cases="c", run="r", task=3),
    _job("unknown action", "'action'.*one of list", "models", action="burn"),
    _job("install without a path", "'path' for the action 'install'", "models", action="install"),
    _job("unknown convention", "'convention'", "evaluate", output="o", model="m", cases="c", convention="best"),
)
