"""What ``model.json`` may say: its schema, and that it tells nothing about the cases a model was trained on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ForgettableSegLib.cases.recipe import Preprocessing
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.models.field_of_view import FieldOfView
from ForgettableSegLib.models.regions import LocatorCard
from ForgettableSegLib.network.arguments import NetworkArguments

SCHEMA = 1
# Names of models are names of folders on every system.
NAME = re.compile(r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9_-])?")
_REQUIRED = {"schema": int, "name": str, "task": dict, "preprocessing": dict, "network": dict, "patch_size": list}
_OPTIONAL = {
    "title": str,
    "description": str,
    "licence": str,
    "attribution": str,
    "preset": str,
    "text": dict,
    "training": dict,
    "provenance": dict,
    "metrics": dict,
    "field_of_view": dict,
    "locator": dict,
    "keep_largest": list,
}
_CASE_TEXTS = ("words", "open_clip", "random")
_MAX_DEPTH = 16
# 512 x 512 x 512: images are padded to the patch, so it decides how much memory is asked for.
_MAX_PATCH = 2**27
_WORDS = {str: "text", dict: "an object", list: "a list", int: "a whole number"}

# Where on a machine a file lies, or the name of an image file: whose name is often that of a patient.
_PATH = re.compile(
    r"""(?:^|[\s"'(\[=:,;])(?:/[\w.@%+-]+/|/[\w-]+\.\w|~[/\\]|[A-Za-z]:[/\\]|\\\\[\w.$-]+\\|file:/)"""
    r"""|\w\.(?:nii(?:\.gz)?|nrrd|nhdr|mha|mhd|dcm|ima)\b""",
    re.IGNORECASE,
)
_CASE_KEY = re.compile(r"(?:case|patient|subject|group|sample)s?(?:_?(?:ids?|names?|list))?|bank")


def parse_card(text: bytes, source: str) -> dict[str, Any]:
    """The JSON object that ``model.json`` holds, unchecked.

    Raises:
        ForgettableSegError: MODEL_INVALID where it is not one.
    """
    try:
        card = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise invalid(source, f"its model.json is not JSON ({error})") from error
    if not isinstance(card, dict):
        raise invalid(source, "its model.json is not a JSON object")
    return card


def check_card(card: Mapping[str, Any], source: str) -> None:
    """Check everything that a card says against the schema and against itself.

    Args:
        card: content of ``model.json`` without ``files``.
        source: what the sentence shall call the package.

    Raises:
        ForgettableSegError: MODEL_INVALID, one sentence for each thing that can be wrong.
    """
    schema = card.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        reason = f"it has schema version {schema!r}, and this version of ForgettableSeg reads {SCHEMA}"
        raise invalid(source, reason, "Update ForgettableSeg, or export the model again.")
    for key, kind in {**_REQUIRED, **_OPTIONAL}.items():
        if key in card and not isinstance(card[key], kind):
            raise invalid(source, f"'{key}' in its model.json is not {_WORDS[kind]}")
        if key in _REQUIRED and key not in card:
            raise invalid(source, f"its model.json lacks '{key}'")
    for key in card:
        if key not in _REQUIRED and key not in _OPTIONAL:
            raise invalid(source, f"its model.json has an unknown entry '{key}'")
    if not NAME.fullmatch(card["name"]):
        reason = f"'{card['name'][:80]}' cannot be the name of a model"
        raise invalid(source, reason, "Use up to 64 letters, digits, spaces, dots, dashes and underscores.")
    for keys, value in _leaves(card, source):
        if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
            raise invalid(source, f"'{'.'.join(keys)}' in its model.json is not text or a finite number")
    _check_parts(card, source)


def check_private(card: Mapping[str, Any], documents: Mapping[str, str], private: Collection[str]) -> None:
    """Refuse to write what could tell whose images a model was trained on.

    Args:
        card: to be written.
        documents: texts to be written beside it.
        private: words that must occur nowhere as a whole key or text, such as the ids of cases. The task's own words
            (names of classes and channels) may occur whatever the cases are called.

    Raises:
        ForgettableSegError: MODEL_INVALID, naming the entry that holds a path, the name of an image file or a case.
    """
    task = Task.from_dict(card["task"])
    own_words = {task.name, *task.channels, *(each.name for each in task.classes)}
    hidden = {word.casefold() for word in private} - {word.casefold() for word in own_words}
    for keys, value in _leaves(card, "The model"):
        where = ".".join(keys)
        texts = [key.casefold() for key in keys] + ([value.casefold()] if isinstance(value, str) else [])
        listed = any(map(_CASE_KEY.fullmatch, texts[: len(keys) - 1])) or (
            isinstance(value, str) and _CASE_KEY.fullmatch(texts[len(keys) - 1])
        )
        if listed or hidden.intersection(texts):
            reason = f"'{where}' in its card names cases, and a model must not tell what it was trained on"
            raise invalid("The model", reason, "Leave it out.")
        if _PATH.search(" ".join(texts)):
            raise _tells_where(f"'{where}' in its card")
    for name, text in documents.items():
        if _PATH.search(text):
            raise _tells_where(name)
        # Shorter ids are ordinary words and numbers.
        if any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text.casefold()) for word in hidden if len(word) > 3):
            raise invalid("The model", f"its {name} names a case that it was trained on", "Leave it out.")


def invalid(source: str, reason: str, hint: str = "") -> ForgettableSegError:
    """The error for a package that is refused."""
    return ForgettableSegError(ErrorCode.MODEL_INVALID, f"{source} cannot be used: {reason}.", hint=hint)


def _tells_where(what: str) -> ForgettableSegError:
    reason = f"{what} holds a path or a file name, and a model must not tell where it was made"
    return invalid("The model", reason, "Leave it out.")


def _check_parts(card: Mapping[str, Any], source: str) -> None:
    """Task, preprocessing and network are each valid, and belong together."""
    try:
        task = Task.from_dict(card["task"])
        preprocessing = Preprocessing.from_dict(card["preprocessing"])
        network = NetworkArguments.from_dict(card["network"])
        if "field_of_view" in card:
            FieldOfView.from_dict(card["field_of_view"])
        if "locator" in card:
            LocatorCard.from_dict(card["locator"])
    except ForgettableSegError as error:
        raise invalid(source, f"its model.json says: {error.message.rstrip('.')}") from error
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise invalid(source, f"its task, preprocessing or network has a value of the wrong type ({error})") from error
    prompts = card.get("text", {}).get("prompts", [])
    if not isinstance(prompts, list | tuple) or not all(isinstance(prompt, str) for prompt in prompts):
        raise invalid(source, "its text prompts are not a list of texts")
    if card.get("text", {}).get("reports", "words") not in _CASE_TEXTS:
        raise invalid(source, "the texts of its cases were embedded in a way that is not known")
    kind = card.get("training", {}).get("prototypes", "ema")
    learnt = {"ema": True, "scdl": network.distributions, "memory": network.memory}
    if not isinstance(kind, str) or not learnt.get(kind) or (kind != "ema" and network.members):
        raise invalid(source, f"its prototypes {kind!r} are none that its network has learnt")
    names = {each.name for each in task.classes}
    if not all(isinstance(name, str) and name in names for name in card.get("keep_largest", [])):
        raise invalid(source, "its keep_largest names something else than its classes")
    agreements = {
        "classes of the task and outputs of the network": (task.num_classes, network.out_channels),
        "channels of the task and inputs of the network": (len(task.channels), network.in_channels),
        "dimensions of preprocessing and network": (preprocessing.spatial_dims, network.spatial_dims),
        "axes of patch_size and dimensions of the network": (len(card["patch_size"]), network.spatial_dims),
    }
    if network.fusion != "none":
        agreements["foreground classes and text prompts"] = (network.out_channels - 1, len(prompts))
    for what, (one, other) in agreements.items():
        if one != other:
            raise invalid(source, f"the numbers of {what} differ ({one} and {other})")
    if not all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= 4096 for n in card["patch_size"]):
        raise invalid(source, f"its patch_size {card['patch_size']} is not made of whole numbers from 1 to 4096")
    if math.prod(card["patch_size"]) > _MAX_PATCH:
        raise invalid(source, f"its patch_size {card['patch_size']} has more voxels than any network was trained on")


def _leaves(
    value: Any, source: str, keys: tuple[str, ...] = (), depth: int = 0
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is no container, with the keys that lead to it."""
    if depth > _MAX_DEPTH:
        raise invalid(source, f"its model.json is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, source, (*keys, str(key)), depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner, source, keys, depth + 1)
    else:
        yield keys, value


def _refuse_constant(name: str) -> None:
    msg = f"{name} is not a number"
    raise ValueError(msg)
