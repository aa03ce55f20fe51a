"""What a model may be called and may hold: nothing that tells of a patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

if TYPE_CHECKING:
    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.training.config import RunConfig


def checked_name(name: str) -> str:
    """The name, if a model can have it.

    Raises:
        ForgettableSegError: REQUEST_INVALID otherwise.
    """
    from ForgettableSegLib.models.card import NAME

    if not NAME.fullmatch(name):
        message = f"'{name}' cannot be the name of a model."
        hint = "Use up to 64 letters, digits, spaces, dots, dashes and underscores."
        raise ForgettableSegError(ErrorCode.REQUEST_INVALID, message, hint=hint)
    return name


def refuse_telling_name(name: str, cases: Sequence[Case]) -> None:
    """A model is passed on under its name, so that must not be the name of a patient; better said before training."""
    if name.casefold() in {word.casefold() for case in cases for word in (case.case_id, case.group)}:
        message = f"The model cannot be called '{name}', because a case that it is trained on is called so."
        raise ForgettableSegError(ErrorCode.REQUEST_INVALID, message, hint="Give the model another name.")


def private_words(config: RunConfig) -> set[str]:
    """Ids and groups of the cases, except for words that every such model holds, whatever the cases ("mr", "cpu")."""
    parts = [config.settings.to_dict(), config.task.to_dict(), config.preprocessing.to_dict(), config.start]
    ordinary = {word.casefold() for word in _words([*parts, "cpu", "mps"])}
    words = {word for case in config.cases for word in (case.case_id, case.group)}
    return {word for word in words if word.casefold() not in ordinary}


def _words(content: Any) -> Iterator[str]:
    """Every key and every text in content for JSON."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        yield from content
        yield from _words(list(content.values()))
    elif isinstance(content, (list, tuple)):
        for item in content:
            yield from _words(item)
