"""What all requests share: how they are made from JSON and checked. Standard library only, for Slicer imports it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.plain import plain


@dataclass(frozen=True, kw_only=True)
class Request:
    """What all requests share: made from JSON, turned into JSON, checked field by field."""

    job: ClassVar[str] = ""

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> Self:
        """Make the request from plain JSON.

        Raises:
            ForgettableSegError: REQUEST_INVALID, naming the argument that is unknown, missing or wrong.
        """
        known = {each.name: each for each in fields(cls)}
        for name in arguments:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"Did you mean '{near[0]}'?" if near else f"It takes {', '.join(known)}."
                raise refused(f"The job '{cls.job}' has no argument '{name}'.", hint)
        for name, each in known.items():
            if name not in arguments and each.default is MISSING and each.default_factory is MISSING:
                raise refused(f"The job '{cls.job}' needs the argument '{name}'.")
        request = cls(**{name: _frozen(value) for name, value in arguments.items()})
        if reason := request.is_valid()[1]:
            raise refused(reason)
        return request

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as plain JSON."""
        return {each.name: plain(getattr(self, each.name)) for each in fields(self)}

    def is_valid(self) -> tuple[bool, str]:
        """Return whether the job can start, and if not one sentence that says why."""
        for name, hint in _hints(type(self)).items():
            wrong = _wrong(hint, getattr(self, name))
            if wrong:
                return False, f"The argument '{name}' of the job '{self.job}' {wrong}."
        reason = self._whole()
        return not reason, reason

    def _whole(self) -> str:
        """Return what is wrong with the arguments taken together, or nothing."""
        return ""


@cache
def _hints(request: type[Request]) -> dict[str, Any]:
    hints = get_type_hints(request, include_extras=True)
    return {each.name: hints[each.name] for each in fields(request)}


def _wrong(hint: Any, value: Any) -> str:
    """Return what the check that ``hint`` carries says of ``value``."""
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return ""
        hint = next(part for part in get_args(hint) if part is not type(None))
    (check,) = hint.__metadata__
    return check(value)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def refused(sentence: str, hint: str = "") -> ForgettableSegError:
    """Return the error of a request that cannot be carried out as it is."""
    return ForgettableSegError(ErrorCode.REQUEST_INVALID, sentence, hint=hint)
