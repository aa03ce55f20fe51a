"""Errors that a user can read: a documented code, one plain sentence, and what to do."""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """What went wrong, in one word that programs can rely on (the full list stands in Documentation/errors.md)."""

    FILE_MISSING = "FILE_MISSING"
    FILE_UNREADABLE = "FILE_UNREADABLE"
    CASE_LIST_INVALID = "CASE_LIST_INVALID"
    CASE_INVALID = "CASE_INVALID"
    TASK_INVALID = "TASK_INVALID"
    SETTING_INVALID = "SETTING_INVALID"
    MODEL_MISSING = "MODEL_MISSING"
    MODEL_INVALID = "MODEL_INVALID"
    REQUEST_INVALID = "REQUEST_INVALID"
    FIELD_OF_VIEW = "FIELD_OF_VIEW"
    TEXT_UNAVAILABLE = "TEXT_UNAVAILABLE"
    DEVICE_UNAVAILABLE = "DEVICE_UNAVAILABLE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DISK_FULL = "DISK_FULL"
    OUTPUT_UNWRITABLE = "OUTPUT_UNWRITABLE"
    RUN_LOCKED = "RUN_LOCKED"
    RUN_MISMATCH = "RUN_MISMATCH"
    CHECKPOINT_INVALID = "CHECKPOINT_INVALID"
    PACKAGE_MISSING = "PACKAGE_MISSING"
    WORKER_DIED = "WORKER_DIED"
    INTERNAL = "INTERNAL"


class ForgettableSegError(Exception):
    """An error with a documented code, whose text is meant for the person at the screen.

    Args:
        code: what went wrong, for programs.
        message: one plain sentence that names the file or thing.
        hint: what to do about it, where the message does not already say so.
    """

    def __init__(self, code: ErrorCode, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.code = code
        self.message = message
        self.hint = hint


class Cancelled(Exception):
    """The user asked the job to stop; raised at the next safe point."""
