"""A case and a list of cases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

# Windows keeps these names for devices, also before a full stop.
_OF_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
# A case id names a folder of results, on any operating system.
_NOT_IN_FILE_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def is_device_name(name: str) -> bool:
    """Whether Windows would take a file or folder of this name for a device, such as "con" or "NUL.txt"."""
    return _OF_DEVICES.fullmatch(name.strip()) is not None


@dataclass(frozen=True)
class Case:
    """One case: the image of a patient at one time, and perhaps its reference segmentation.

    Args:
        case_id: unique in its list, and fit for a file name.
        group: cases of one group (a patient) stay together when cases are split.
        images: one file for each channel, or a single file that holds all channels; a folder stands for a DICOM series.
        label: label map of the reference segmentation, if there is one.
        label_values: pairs of a value in the label map and the value of the task that it stands for, 0 for none; empty
            where the label map holds the task's values.
        text: what is said of it, a report or tags; empty where nothing is.

    Raises:
        ForgettableSegError: `CASE_LIST_INVALID` if the id cannot name a folder or there is no image.
    """

    case_id: str
    group: str
    images: tuple[Path, ...]
    label: Path | None = None
    label_values: tuple[tuple[int, int], ...] = ()
    text: str = ""

    def __post_init__(self) -> None:
        fits = self.case_id.strip(" .") == self.case_id and not _NOT_IN_FILE_NAMES.search(self.case_id)
        if not self.case_id or not fits:
            raise ForgettableSegError(
                ErrorCode.CASE_LIST_INVALID,
                f"'{self.case_id}' cannot be the id of a case, because results are stored in a folder of that name.",
                hint="Use letters, digits, '-' and '_'.",
            )
        if not self.images:
            raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, f"Case '{self.case_id}' has no image.")

    def to_dict(self) -> dict[str, Any]:
        """The case as the configuration of a run holds it, as JSON types."""
        return {
            "id": self.case_id,
            "group": self.group,
            "images": [str(path) for path in self.images],
            "label": str(self.label) if self.label else None,
            **({"label_values": [list(pair) for pair in self.label_values]} if self.label_values else {}),
            **({"text": self.text} if self.text else {}),
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Case:
        """The case that `to_dict` wrote."""
        return cls(
            entry["id"],
            entry["group"],
            tuple(Path(path) for path in entry["images"]),
            Path(entry["label"]) if entry["label"] else None,
            tuple((found, value) for found, value in entry.get("label_values", ())),
            entry.get("text", ""),
        )

    @property
    def folder_name(self) -> str:
        """Name of the folder of its results: its id, but never that of one of Windows' devices ("CON")."""
        return f"{self.case_id}_" if is_device_name(self.case_id) else self.case_id

    @property
    def files(self) -> tuple[Path, ...]:
        """Images and label."""
        return self.images if self.label is None else (*self.images, self.label)

    @property
    def is_label_map(self) -> bool:
        """Whether there is a label map alone, of which images can be made (`cases.synthesis_recipe`)."""
        return self.label is not None and set(self.images) == {self.label}


@dataclass(frozen=True)
class CaseList:
    """Cases from one source.

    Args:
        cases: the cases, in a stable order.
        task: what the source says about channels and classes, if it does.
        source: the folder or file they were read from.
    """

    cases: tuple[Case, ...]
    task: Task | None
    source: Path

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __len__(self) -> int:
        return len(self.cases)
