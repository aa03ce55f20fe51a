"""What a model segments: modality, channels and classes (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

# Class indices are stored in 8 bits, 255 is kept for "ignore".
MAX_CLASSES = 254
# Label values are stored in at most 16 bits.
MAX_LABEL_VALUE = 65535

_MR_WORDS = ("mr", "mri", "t1", "t2", "flair", "adc", "dwi", "pd", "bold", "cine", "swi", "ktrans")


@dataclass(frozen=True)
class SegmentClass:
    """One foreground class.

    Args:
        name: what the user calls it; it names the segment in Slicer.
        value: its value in label files, 1 to 65535.
        prompt: the words that stand for it in the text prompt; empty to use the name.
        color: red, green, blue, each 0 to 255.
        terminology: SNOMED CT codes, each a triple of scheme, code and meaning:
            `{"category": [...], "type": [...], "modifier": [...] or None}`, and perhaps "region" and
            "region_modifier", which say where it lies.

    Raises:
        ForgettableSegError: `TASK_INVALID`, with a sentence that names the class.
    """

    name: str
    value: int
    prompt: str = ""
    color: tuple[int, int, int] | None = None
    terminology: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise _invalid(f"The class with label value {self.value!r} has no name.")
        if not _is_int(self.value):
            raise _invalid(f"The label value of class '{self.name}' must be a whole number, not {self.value!r}.")
        if self.value == 0:
            raise _invalid(f"Class '{self.name}' uses label value 0, which is the background; give it another value.")
        if not 0 < self.value <= MAX_LABEL_VALUE:
            raise _invalid(f"Class '{self.name}' uses label value {self.value}; use 1 to {MAX_LABEL_VALUE}.")
        if not isinstance(self.prompt, str):
            raise _invalid(f"The prompt of class '{self.name}' must be text, not {self.prompt!r}.")
        if self.color is not None:
            object.__setattr__(self, "color", _color(self.name, self.color))
        if self.terminology is not None:
            _check_terminology(self.name, self.terminology)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SegmentClass:
        """Build a class from JSON content, refusing names it does not know."""
        _check_keys(content, cls, "A class")
        if "name" not in content or "value" not in content:
            raise _invalid(f"Every class needs a 'name' and a label 'value', but one holds only {sorted(content)}.")
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Content for JSON."""
        content = asdict(self)
        content["color"] = None if self.color is None else list(self.color)
        content["terminology"] = None if self.terminology is None else dict(self.terminology)
        return content


@dataclass(frozen=True)
class Task:
    """What a model segments.

    Args:
        name: a short name.
        modality: "MR", "CT" or another word; it decides intensity normalisation and the prompt template.
        channels: name of each image channel, in the order of a case's images.
        classes: foreground classes; their order gives class indices 1, 2, ... (0 is the background).

    Raises:
        ForgettableSegError: `TASK_INVALID`, with a sentence that says what is wrong and what to change.
    """

    name: str
    modality: str
    channels: tuple[str, ...]
    classes: tuple[SegmentClass, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise _invalid("The task has no name.")
        if not isinstance(self.modality, str) or not self.modality.strip():
            raise _invalid(f"Task '{self.name}' has no modality; write 'MR', 'CT' or another word.")
        object.__setattr__(self, "channels", tuple(_sequence(self.channels, f"The channels of task '{self.name}'")))
        object.__setattr__(self, "classes", tuple(_sequence(self.classes, f"The classes of task '{self.name}'")))
        if not self.channels:
            raise _invalid(f"Task '{self.name}' has no image channel; name at least one, for example 'T1'.")
        if not all(isinstance(channel, str) and channel.strip() for channel in self.channels):
            raise _invalid(f"Task '{self.name}' has an image channel without a name.")
        if not self.classes:
            raise _invalid(f"Task '{self.name}' has no class to segment; add at least one.")
        if len(self.classes) > MAX_CLASSES:
            raise _invalid(f"Task '{self.name}' has {len(self.classes)} classes; at most {MAX_CLASSES} are possible.")
        names = [one.name.strip().casefold() for one in self.classes]
        _check_unique(f"Task '{self.name}' has two classes named", names)
        _check_unique(f"Task '{self.name}' has two classes with label value", [one.value for one in self.classes])

    @property
    def num_classes(self) -> int:
        """Number of classes with the background."""
        return len(self.classes) + 1

    @property
    def label_values(self) -> tuple[int, ...]:
        """Label value of each class index, the background (0) first."""
        return (0, *(one.value for one in self.classes))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Task:
        """Build a task from JSON content, refusing names it does not know.

        Raises:
            ForgettableSegError: `TASK_INVALID`.
        """
        if not isinstance(content, Mapping):
            raise _invalid("A task must be a JSON object with name, modality, channels and classes.")
        _check_keys(content, cls, "A task")
        missing = [one.name for one in fields(cls) if one.name not in content]
        if missing:
            raise _invalid(f"The task lacks {', '.join(missing)}.")
        classes = _sequence(content["classes"], "The classes of the task")
        return cls(**{**content, "classes": tuple(SegmentClass.from_dict(one) for one in classes)})

    def to_dict(self) -> dict[str, Any]:
        """Content for JSON; `from_dict` gives the same task back."""
        return {
            "name": self.name,
            "modality": self.modality,
            "channels": list(self.channels),
            "classes": [one.to_dict() for one in self.classes],
        }

    @classmethod
    def from_dataset(cls, content: Mapping[str, Any], *, name: str = "") -> Task:
        """Build a task from the `dataset.json` of a Medical Segmentation Decathlon or nnU-Net data set.

        Args:
            content: what the file holds. Labels may be `{"1": "liver"}` or `{"liver": 1}`.
            name: used where the file states none.

        Raises:
            ForgettableSegError: `TASK_INVALID`, also for labels that are unions of values or an ignore label.
        """
        channel_names = content.get("channel_names") or content.get("modality") or {"0": "image"}
        if not isinstance(channel_names, Mapping):
            channel_names = {"0": str(channel_names)}
        channels = tuple(str(channel_names[key]) for key in sorted(channel_names, key=_number_first))
        labels = content.get("labels")
        if not isinstance(labels, Mapping):
            raise _invalid("The data set states no labels; add 'labels' to its dataset.json.")
        pairs = [_label_pair(key, value) for key, value in labels.items()]
        foreground = sorted((pair for pair in pairs if pair[1] != 0), key=lambda pair: pair[1])
        classes = tuple(SegmentClass(name=label, value=value) for label, value in foreground)
        return cls(
            name=str(content.get("name") or name or "data set"),
            modality=_modality_of(channels),
            channels=channels,
            classes=classes,
        )


def _invalid(message: str) -> ForgettableSegError:
    return ForgettableSegError(ErrorCode.TASK_INVALID, message)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sequence(value: object, what: str) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _invalid(f"{what} must be a list, not {value!r}.")
    return value


def _check_keys(content: object, cls: type, what: str) -> None:
    if not isinstance(content, Mapping):
        raise _invalid(f"{what} must be a JSON object, not {content!r}.")
    known = [one.name for one in fields(cls)]
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise _invalid(f"{what} cannot have '{unknown[0]}'; it may have {', '.join(known)}.")


def _check_unique(sentence: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise _invalid(f"{sentence} '{value}'; each must be different.")


def _color(name: str, color: object) -> tuple[int, ...]:
    if isinstance(color, Sequence) and len(color) == 3 and all(_is_int(one) and 0 <= one <= 255 for one in color):
        return tuple(color)
    raise _invalid(f"The colour of class '{name}' must be three whole numbers from 0 to 255, not {color!r}.")


def _check_terminology(name: str, terminology: object) -> None:
    optional = {"modifier", "region", "region_modifier"}
    allowed = {"category", "type", *optional}
    if not isinstance(terminology, Mapping) or not {"category", "type"} <= set(terminology) <= allowed:
        raise _invalid(f"The terminology of class '{name}' needs a category and a type, and may have a modifier.")
    for key, code in terminology.items():
        is_triple = isinstance(code, Sequence) and len(code) == 3 and all(isinstance(one, str) for one in code)
        if not is_triple and not (key in optional and code is None):
            raise _invalid(f"The {key} of class '{name}' must be a scheme, a code and a meaning, not {code!r}.")


def _number_first(key: object) -> tuple[int, str]:
    text = str(key)
    return (int(text) if text.isdigit() else MAX_LABEL_VALUE, text)


def _label_pair(key: object, value: object) -> tuple[str, int]:
    """Name and value of one entry of `labels`, whichever way round it was written."""
    if isinstance(value, (list, tuple)):
        raise _invalid(f"Label '{key}' joins several values, which is not supported; give each class its own.")
    if str(key) == "ignore":
        raise _invalid("The data set has an ignore label, which is not supported; remove it or give it a class.")
    if str(key).isdigit() and not _is_int(value):
        return str(value), int(str(key))
    if _is_int(value) or str(value).isdigit():
        return str(key), int(str(value))
    raise _invalid(f"Label '{key}: {value}' is neither a value with a name nor a name with a value.")


def _modality_of(channels: Sequence[str]) -> str:
    words = [channel.strip().casefold() for channel in channels]
    if all(word == "ct" or word.startswith(("ct ", "ct-", "ct_", "computed tomography")) for word in words):
        return "CT"
    if any(word.startswith(_MR_WORDS) for word in words):
        return "MR"
    return channels[0] if len(channels) == 1 else "other"
