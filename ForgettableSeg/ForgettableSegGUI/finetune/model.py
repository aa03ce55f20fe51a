"""What the Fine-tune panel decides: the cases, their classes and problems, the settings, and when it may start."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ForgettableSegLib.cases.matching import FoundClass, match_classes
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.errors import ForgettableSegError

from ..i18n import tr as _
from ..model_cards import ModelCard
from ..packages import missingSentence

SCRATCH = "*"
"""The start model's name where a model is trained from scratch; no model can be called so."""

MIN_CASES = 3
"""One case each for training, validation and the held-out comparison."""


@dataclass(frozen=True)
class TrainingCase:
    """A row of the table of training cases.

    Args:
        caseId: its name, unique in the table.
        included: whether it is ticked.
        pair: position of its volume and segmentation in the parameter node's lists, -1 for a case in files.
        channels: number of the volumes that follow each other there.
        images: files of the channels, for a case in files.
        label: label file, for a case in files.
        group: patient, for the split.
        segments: names of the segments found; for a case in files those of its classes, "value 1" for one without.
        values: label value of each of them in the label file, for a case in files.
        problems: what the check found, in plain words.
        blocking: whether one of the problems is an error.
    """

    caseId: str
    included: bool = True
    pair: int = -1
    channels: int = 1
    images: tuple[str, ...] = ()
    label: str = ""
    group: str = ""
    segments: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()
    blocking: bool = False
    checked: bool = False

    @property
    def inScene(self) -> bool:
        """Whether the case is a volume and a segmentation in the scene."""
        return self.pair >= 0


def casesToJson(cases: Iterable[TrainingCase]) -> str:
    """Return the table as the parameter node keeps it."""
    return json.dumps([asdict(case) for case in cases])


def casesFromJson(text: str) -> list[TrainingCase]:
    """Return the table that the parameter node keeps; a damaged one is an empty one."""
    try:
        rows = json.loads(text or "[]")
        return [
            TrainingCase(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})
            for row in rows
        ]
    except (ValueError, TypeError, AttributeError):
        return []


def uniqueCaseId(name: str, cases: Iterable[TrainingCase]) -> str:
    """Return a name for a new case that no other one has."""
    taken = {case.caseId for case in cases}
    base = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).strip("._") or "case"
    candidate, number = base, 2
    while candidate in taken:
        candidate, number = f"{base}_{number}", number + 1
    return candidate


def withSegments(case: TrainingCase, segments: tuple[str, ...]) -> TrainingCase:
    """Return a case with the segments that it has now; if they are others, what a check found holds no more."""
    if segments == case.segments:
        return case
    return replace(case, segments=segments, problems=(), blocking=False, checked=False)


def withFindings(cases: Sequence[TrainingCase], findings: Iterable[Mapping[str, Any]]) -> list[TrainingCase]:
    """Return the table with the findings of a check, each at its case; those of no case stand at every one."""
    byCase: dict[str, list[Mapping[str, Any]]] = {}
    for finding in findings:
        byCase.setdefault(str(finding.get("case") or ""), []).append(finding)
    result = []
    for case in cases:
        own = byCase.get(case.caseId, [])
        result.append(
            replace(
                case,
                problems=tuple(str(each.get("text") or each.get("message") or "") for each in own),
                blocking=any(each.get("severity") == "error" for each in own),
                checked=True,
            )
        )
    return result


def generalFindings(findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the findings that belong to no case."""
    return [str(each.get("text") or "") for each in findings if not each.get("case")]


def caseRows(cases: Sequence[TrainingCase]) -> list[list[str]]:
    """Return the rows of the table of cases."""
    rows = []
    for case in cases:
        state = _("ok") if case.checked else _("not checked")
        rows.append([case.caseId, ", ".join(dict.fromkeys(case.segments)), "; ".join(case.problems) or state])
    return rows


def segmentNames(cases: Iterable[TrainingCase]) -> list[str]:
    """Return the names of all segments in the ticked cases, in the order of their appearance."""
    return list(dict.fromkeys(name for case in cases if case.included for name in case.segments))


def casesOfFiles(result: Mapping[str, Any], taken: Iterable[TrainingCase]) -> dict[str, TrainingCase]:
    """Return the cases of a case list that the library has read, by their id there; those in the table are left out.

    Args:
        result: of the job `validate`: the cases, their task, and without one the label values that there are.
        taken: the cases in the table.
    """
    cases = list(taken)
    known = {case.images for case in cases}
    task, values = result.get("task") or {}, result.get("values") or ()
    names = {int(each["value"]): str(each["name"]) for each in task.get("classes") or ()}
    names = names or {int(each["value"]): _("value {value}").format(value=each["value"]) for each in values}
    found: dict[str, TrainingCase] = {}
    for row in result.get("case_list") or ():
        images = tuple(str(path) for path in row.get("images") or ())
        if images in known:
            continue
        meant = {int(old): int(new) for old, new in (row.get("label_values") or {}).items()} or {v: v for v in names}
        held = {value: names[one] for value, one in meant.items() if one in names}
        case = TrainingCase(
            caseId=uniqueCaseId(str(row.get("id") or images[0]), cases),
            channels=len(images),
            images=images,
            label=str(row.get("label") or ""),
            group=str(row.get("group") or ""),
            segments=tuple(held.values()),
            values=tuple(held),
        )
        cases.append(case)
        found[str(row.get("id"))] = case
    return found


def matchedFiles(cases: Iterable[TrainingCase], classes: Sequence[SegmentClass]) -> tuple[dict[str, str], str]:
    """Return the class by name of what label files hold, as far as it is known; and what there is to say of it.

    Values that nobody named are those of the classes, as far as the classes have them.
    """
    found: dict[str, FoundClass] = {}
    for case in cases:
        for name, value in zip(case.segments, case.values, strict=False):
            found.setdefault(name, FoundClass(name, name, value))
    held, wanted = list(found.values()), list(classes)
    if all(one.is_nameless for one in held):
        values = {one.value for one in held} & {each.value for each in classes}
        held = [one for one in held if one.value in values]
        wanted = [each for each in classes if each.value in values]
    matching = match_classes(held, wanted, trust_values=True)
    unknown = ", ".join(name for name in found if matching.class_of(name) is None)
    sentence = "" if matching.is_plain or not matching.matches else matching.sentence
    if unknown:
        sentence = _("Say in the table of segments which class this stands for: {names}.").format(names=unknown)
    return {key: match.name for key, (match, _how) in matching.matches.items()}, sentence


@dataclass(frozen=True)
class NewClass:
    """A class of a model from scratch: its name, the words that stand for it in the prompt, its label value.

    The name is empty until the user gives one.
    """

    name: str
    prompt: str = ""
    value: int = 1


def classesToJson(classes: Iterable[NewClass]) -> str:
    """Return the classes as the parameter node keeps them."""
    return json.dumps([asdict(each) for each in classes])


def classesFromJson(text: str) -> list[NewClass]:
    """Return the classes that the parameter node keeps; damaged ones are none."""
    try:
        return [NewClass(**row) for row in json.loads(text or "[]")]
    except (ValueError, TypeError):
        return []


def withNewClass(classes: Sequence[NewClass], name: str) -> list[NewClass]:
    """Return the classes with one more, under a free label value."""
    value = max((each.value for each in classes), default=0) + 1
    return [*classes, NewClass(name or _("class {number}").format(number=value), "", value)]


def classesOfCases(cases: Iterable[TrainingCase]) -> list[NewClass]:
    """Return the classes that a new model begins with: what the cases hold; values that nobody named have no name."""
    values = {name: value for case in cases for name, value in zip(case.segments, case.values, strict=False)}
    classes: list[NewClass] = []
    for name in segmentNames(cases):
        free = withNewClass(classes, name)[-1].value
        found = FoundClass(name, name, values.get(name))
        classes.append(NewClass("" if found.value and found.is_nameless else name, "", found.value or free))
    return classes


def newTask(name: str, modality: str, channels: Sequence[str], classes: Sequence[NewClass]) -> tuple[Task | None, str]:
    """Return the task of a model from scratch, or None and the sentence that says what is wrong with it."""
    unnamed = ", ".join(str(each.value) for each in classes if not each.name)
    if unnamed:
        return None, _("Name the classes of these label values in Settings: {values}.").format(values=unnamed)
    try:
        made = tuple(SegmentClass(name=each.name, value=each.value, prompt=each.prompt) for each in classes)
        return Task(name=name or "model", modality=modality, channels=tuple(channels), classes=made), ""
    except ForgettableSegError as error:
        return None, str(error)


@dataclass(frozen=True)
class FineTuneState:
    """Everything that decides whether a training can start.

    Args:
        missing: packages that are not installed.
        cases: the table of cases.
        mapping: class by segment name.
        task: the task to train, None where it is not complete; then `taskProblem` says why.
        start: card of the model to start from, None for a model from scratch.
        newName: name of the model that comes out.
        takenNames: names that models on this computer have.
        gone: names of cases whose volume or segmentation is not in the scene any more.
        busy: title of the job at work, or nothing.
    """

    missing: tuple[str, ...] = ()
    cases: tuple[TrainingCase, ...] = ()
    mapping: Mapping[str, str] = field(default_factory=dict)
    task: Task | None = None
    taskProblem: str = ""
    start: ModelCard | None = None
    newName: str = ""
    takenNames: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    busy: str = ""

    def isValid(self) -> tuple[bool, str]:
        """Return whether the training can start, and if not one sentence that says why."""
        reason = self._casesReason() or self._modelReason()
        if not reason and self.busy:
            reason = _("Wait until the running job has ended: {title}.").format(title=self.busy)
        return not reason, reason

    def _casesReason(self) -> str:
        included = [case for case in self.cases if case.included]
        if self.missing:
            return missingSentence(self.missing)
        if len(included) < MIN_CASES:
            text = _("Tick at least {count} cases: one to train, one to validate, one to compare.")
            return text.format(count=MIN_CASES)
        gone = [case.caseId for case in included if case.caseId in self.gone]
        if gone:
            return _("The case {name} is not in the scene any more; remove it from the list.").format(name=gone[0])
        blocking = [case.caseId for case in included if case.blocking]
        if blocking:
            return _("The case {name} has a problem; mend it or untick it.").format(name=blocking[0])
        known = [case for case in included if case.segments]
        if known and self.task is not None and not any(self.mapping.get(name) for name in segmentNames(known)):
            return _("No segment stands for a class of the model; see the table of segments in Cases.")
        return ""

    def _modelReason(self) -> str:
        if self.task is None:
            return self.taskProblem or _("Choose the model to start from, or the classes of a new one.")
        if any(case.included and case.inScene and case.channels != len(self.task.channels) for case in self.cases):
            return _("The model needs {count} volumes a case.").format(count=len(self.task.channels))
        if not self.newName.strip():
            return _("Give the new model a name.")
        if self.newName.strip() in self.takenNames:
            return _("There is already a model named {name}; choose another name.").format(name=self.newName.strip())
        return ""


def trainingSettings(values: Mapping[str, Any], *, scratch: bool) -> dict[str, Any]:
    """Return the settings of the request: those alone that differ from the preset.

    Args:
        values: parameters of the panel by name, see `ForgettableSegParameterNode`.
        scratch: whether the network is new; otherwise its shape is that of the start model.
    """
    settings: dict[str, Any] = {"preset": values["preset"], "device": values["trainingDevice"] or "auto"}
    settings[values["trainingUnit"]] = values["trainingLength"]
    for name, setting in (("textGuidance", "tgf"), ("prototypeScores", "pbs"), ("sampleBank", "fsb")):
        if values[name] != "preset":
            settings[setting] = values[name] == "on"
    for name, setting in (
        ("admission", "admission"),
        ("replacement", "replacement"),
        ("auxLoss", "aux_loss"),
        ("memory", "memory"),
        ("guidance", "guidance"),
    ):
        if values[name] != "preset":
            settings[setting] = values[name]
    for name, setting in (
        ("rho", "rho"),
        ("bankBatches", "bank_batches"),
        ("replayEvery", "replay_every"),
        ("learningRate", "learning_rate"),
    ):
        if values[name]:
            settings[setting] = values[name]
    if settings.get("pbs") is False and settings.get("fsb", True):
        settings["selection"] = "random"  # without scores nothing else can choose
    if scratch:
        dims = {"2D": 2, "3D": 3}.get(values["dimension"])
        if dims is not None:
            settings["spatial_dims"] = dims
        if values["patchSize"]:
            settings["patch_size"] = [values["patchSize"]] * (dims or 2)
    return settings


def suggestName(start: ModelCard | None, taken: Iterable[str]) -> str:
    """Return a free name for the new model."""
    base = f"{start.name}-tuned" if start is not None else "my-model"
    names, candidate, number = set(taken), base, 2
    while candidate in names:
        candidate, number = f"{base}-{number}", number + 1
    return candidate
