"""The lines that a client and the worker exchange: requests in, events out, one JSON object a line.

Standard library only, for Slicer imports it in its own process. Documentation/protocol.md is the same in words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.plain import plain

PREFIX = "@fs "
"""Starts every line that is an event; whatever else a stream carries is log text."""

MAX_REQUEST_CHARACTERS = 64 * 1024 * 1024
"""A longer request line is refused before it is parsed."""

EVENT_FIELDS: dict[str, tuple[str, ...]] = {
    "ready": ("pid", "versions"),
    "warmed": (),
    "started": ("job", "pid"),
    "progress": ("phase", "step", "of", "eta_s"),
    "metric": ("name", "iteration", "values"),
    "log": ("text",),
    "warning": ("text",),
    "finding": ("severity", "code", "case", "path", "text"),
    "artifact": ("kind", "path"),
    "case_failed": ("case", "code", "text"),
    "paused": (),
    "resumed": (),
    "failed": ("code", "text", "hint", "log"),
    "done": ("exit_code", "result"),
    "cancelled": ("resumable",),
}
"""Every kind of event and the fields that it always has, beside ``event``, ``id`` and ``time``."""

FINAL_EVENTS = frozenset({"failed", "done", "cancelled"})
"""The events of which each job sends exactly one, as its last."""

REQUEST_KINDS = ("job", "cancel", "pause", "resume", "shutdown", "warm")


@dataclass(frozen=True)
class WorkerRequest:
    """One line to the worker.

    Args:
        request: one of ``REQUEST_KINDS``.
        id: the client's name for the job; the events of the job carry it.
        job: for ``request == "job"``, which job.
        arguments: for ``request == "job"``, the job's arguments as plain JSON.
    """

    request: str
    id: str = ""
    job: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


def encode_event(event: Mapping[str, Any]) -> str:
    """Return ``event`` as one line, with the prefix and the line's end.

    The text is ASCII, so that no code page of a terminal or pipe can spoil it.

    Raises:
        ValueError: if the event's kind is unknown or one of its fields is missing.
        TypeError: if a value cannot be carried by JSON.
    """
    kind = event.get("event")
    if kind not in EVENT_FIELDS:
        msg = f"There is no event '{kind}'."
        raise ValueError(msg)
    missing = [name for name in EVENT_FIELDS[kind] if name not in event]
    if missing:
        msg = f"The event '{kind}' lacks {', '.join(missing)}."
        raise ValueError(msg)
    return f"{PREFIX}{json.dumps(plain(event), allow_nan=False)}\n"


def parse_line(line: str | bytes) -> dict[str, Any] | None:
    """Return the event in ``line``, or None where the line is log text."""
    text = line.decode("utf-8", errors="replace") if isinstance(line, bytes) else line
    if not text.startswith(PREFIX):
        return None
    try:
        event = json.loads(text[len(PREFIX) :])
    except (ValueError, RecursionError):
        return None
    kind = event.get("event") if isinstance(event, dict) else None
    return event if isinstance(kind, str) and kind in EVENT_FIELDS else None


def encode_request(request: str, *, id: str = "", job: str = "", arguments: Mapping[str, Any] | None = None) -> str:
    """Return a request to the worker as one line with its end.

    Args:
        request: one of ``REQUEST_KINDS``.
        id: the client's name for the job.
        job: which job, for ``request="job"``.
        arguments: the job's arguments, for ``request="job"``.

    Raises:
        ValueError: if the kind of request is unknown.
        TypeError: if a value cannot be carried by JSON.
    """
    if request not in REQUEST_KINDS:
        msg = f"There is no request '{request}'."
        raise ValueError(msg)
    content: dict[str, Any] = {"request": request, "id": id}
    if request == "job":
        content |= {"job": job, "arguments": plain(arguments or {})}
    return json.dumps(content, allow_nan=False) + "\n"


def parse_request(line: str | bytes) -> WorkerRequest:
    """Return the request in ``line``.

    Raises:
        ForgettableSegError: REQUEST_INVALID, with a sentence that says what is wrong with the line.
    """
    content = _json_object(line)
    kind = content.get("request")
    if kind not in REQUEST_KINDS:
        raise _invalid(f"The request {_shown(kind)} is unknown; it must be one of {', '.join(REQUEST_KINDS)}.")
    unknown = sorted(set(content) - {"request", "id", "job", "arguments"})
    if unknown:
        raise _invalid(f"The request has a field {_shown(unknown[0])} that is unknown.")
    identifier = content.get("id", "")
    if isinstance(identifier, bool) or not isinstance(identifier, (str, int)):
        raise _invalid("The request's id must be text.")
    if kind != "job":
        return WorkerRequest(request=kind, id=str(identifier))
    job, arguments = content.get("job"), content.get("arguments", {})
    if not isinstance(job, str) or not job:
        raise _invalid("The request names no job.")
    if not isinstance(arguments, dict):
        raise _invalid(f"The arguments of the job {_shown(job)} must be a JSON object.")
    return WorkerRequest(request=kind, id=str(identifier), job=job, arguments=arguments)


def request_id(line: str | bytes) -> str:
    """Return the id of a request line that need not be valid otherwise, for the answer that refuses it."""
    try:
        identifier = _json_object(line).get("id", "")
    except ForgettableSegError:
        return ""
    return str(identifier) if isinstance(identifier, (str, int)) else ""


def _json_object(line: str | bytes) -> dict[str, Any]:
    if len(line) > MAX_REQUEST_CHARACTERS:
        raise _invalid(f"The request is longer than {MAX_REQUEST_CHARACTERS // 2**20} MiB.")
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _invalid("The request is not one line of JSON.") from error
    if not isinstance(content, dict):
        raise _invalid("The request must be a JSON object.")
    return content


def _invalid(sentence: str) -> ForgettableSegError:
    return ForgettableSegError(ErrorCode.REQUEST_INVALID, sentence)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
