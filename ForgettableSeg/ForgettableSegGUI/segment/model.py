"""What the Segment panel decides: which volume fits which channel, what may be pressed, what is said."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..channels import MAX_CHANNELS
from ..i18n import tr as _
from ..model_cards import ModelCard
from ..packages import missingSentence

_MODALITY_WORDS = {
    "mr": {"mr", "mri", "t1", "t2", "flair", "adc", "dwi", "t1w", "t2w", "t1c", "t1ce", "t1gd"},
    "ct": {"ct", "cta", "cect", "ncct"},
}


@dataclass(frozen=True)
class VolumeFacts:
    """What decides whether a volume can be an input.

    Args:
        nodeId: its id in the scene.
        name: its name.
        problem: a sentence that says why it cannot be used, or nothing.
        size: its number of voxels on each axis.
        modality: what its DICOM header says, or nothing.
    """

    nodeId: str
    name: str
    problem: str = ""
    size: tuple[int, int, int] = (0, 0, 0)
    modality: str = ""


@dataclass(frozen=True)
class SegmentState:
    """Everything that decides whether Apply can be pressed.

    Args:
        missing: packages that are not installed.
        card: the chosen model.
        whyNoModel: why there is none to choose, or not the one of the scene, or nothing.
        volumes: the chosen volume of each channel of the model, None where none is chosen.
        busy: title of the job at work, or nothing.
    """

    missing: tuple[str, ...] = ()
    card: ModelCard | None = None
    whyNoModel: str = ""
    volumes: tuple[VolumeFacts | None, ...] = ()
    busy: str = ""

    def isValid(self) -> tuple[bool, str]:
        """Return whether Apply can be pressed, and if not one sentence that says why."""
        reason = self._reason()
        return not reason, reason

    def _reason(self) -> str:
        if self.missing:
            return missingSentence(self.missing)
        if self.card is None:
            return self.whyNoModel or _("Choose a model.")
        channels = self.card.channels
        if len(channels) > MAX_CHANNELS:
            return _("This model needs {count} channels; the panel takes at most {most}. Use the batch script.").format(
                count=len(channels), most=MAX_CHANNELS
            )
        return _volumesReason(channels, self.volumes) or _busyReason(self.busy)


def _volumesReason(channels: Sequence[str], volumes: Sequence[VolumeFacts | None]) -> str:
    for channel, volume in zip(channels, (*volumes, *[None] * len(channels)), strict=False):
        if volume is None:
            return (
                _("Choose a volume.")
                if len(channels) == 1
                else _("Choose a volume for the channel {name}.").format(name=channel)
            )
        if volume.problem:
            return volume.problem
    ids = [volume.nodeId for volume in volumes[: len(channels)] if volume is not None]
    if len(set(ids)) < len(ids):
        return _("The same volume is chosen for two channels.")
    return ""


def _busyReason(busy: str) -> str:
    return _("Wait until the running job has ended: {title}.").format(title=busy) if busy else ""


def suggestVolumes(card: ModelCard, volumes: Sequence[VolumeFacts]) -> list[VolumeFacts | None]:
    """Return a volume for each channel of a model, judged by name and modality; None where nothing fits well.

    A model of one channel takes the best volume there is; one of several takes only those whose names say the channel.
    """
    usable = [volume for volume in volumes if not volume.problem]
    chosen: list[VolumeFacts | None] = []
    several = len(card.channels) > 1
    for channel in card.channels:
        scored = [
            (score, -position, volume)
            for position, volume in enumerate(usable)
            if volume not in chosen and (score := _fit(channel, card.task.modality, volume)) > (2 if several else 0)
        ]
        chosen.append(max(scored, key=lambda each: each[:2])[2] if scored else None)
    return chosen


def _fit(channel: str, modality: str, volume: VolumeFacts) -> int:
    """How well a volume's name and modality fit a channel: 0 not at all, above 2 the channel's name is in it."""
    words = set(_words(volume.name))
    wanted = set(_words(channel))
    family = _family(modality)
    stated = _family(volume.modality) or _family(" ".join(words))
    if family and stated and family != stated:
        return 0
    score = 1 + (family != "" and family == stated)
    return score + 2 * bool(wanted & words)


def _family(text: str) -> str:
    words = set(_words(text))
    return next((family for family, known in _MODALITY_WORDS.items() if words & known), "")


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def volumeFactsText(volume: VolumeFacts | None) -> str:
    """Return the size of a volume, for a tool tip."""
    return "" if volume is None else "{} · {} x {} x {}".format(html.escape(volume.name), *volume.size)


def resultSentence(segmentationName: str, seconds: float) -> str:
    """Return what is said after a segmentation."""
    return _("{name} is ready ({seconds:.1f} s).").format(name=segmentationName, seconds=seconds)


def ownRemarks(problems: Sequence[str], case: str) -> list[str]:
    """Return what the library said of the one case of a job, without the case's name before it."""
    return [problem.removeprefix(f"{case}: ") for problem in problems]


def remarksByClass(remarks: Sequence[str], classNames: Sequence[str]) -> dict[str, str]:
    """Return the sentences that begin with the name of a class, by that name ("anterior hippocampus has 9 ml ...")."""
    found: dict[str, list[str]] = {}
    for remark in remarks:
        named = [name for name in classNames if remark.casefold().startswith(f"{name.casefold()} ")]
        if named:
            found.setdefault(max(named, key=len), []).append(remark)
    return {name: " ".join(sentences) for name, sentences in found.items()}
