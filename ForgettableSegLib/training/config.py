"""What decides a training run, as its folder keeps it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ForgettableSegLib.cases.case import Case, CaseList
from ForgettableSegLib.cases.preprocessing import Preprocessing
from ForgettableSegLib.cases.split import Split, split_cases
from ForgettableSegLib.cases.synthesis_recipe import Recipe, find_recipe
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.build import NetworkArguments
from ForgettableSegLib.text.encoders import TextEmbeddings, encode_prompts
from ForgettableSegLib.text.prompts import prompt_for
from ForgettableSegLib.text.store import same_prompt
from ForgettableSegLib.training.consistency import unlabelled_cases
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.files import whole_text_file
from ForgettableSegLib.training.planning import (
    coarser,
    default_features,
    free_memory,
    measure_speed,
    plan_training,
    planned_mirror_axes,
    planned_preprocessing,
    prepared_shapes,
)
from ForgettableSegLib.training.recorder import Recorder
from ForgettableSegLib.training.settings import TrainingSettings
from ForgettableSegLib.training.told import PROTOTYPES, TEXT_FREE_LENGTH, encode_told

CONFIG_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What config.json of a run folder holds: all that decides the run.

    Args:
        name: of the model that comes out.
        settings: of the training.
        task: what is segmented.
        cases: all labelled cases that were given, and those without a label where they are learnt from.
        split: which of them train, choose the best model, and are held out.
        preprocessing: how cases are prepared.
        patch_size: voxels an axis.
        network: arguments of `build_network`.
        text: {"source", "encoder", "prompts"}, and "reports", how texts of cases are embedded, where these guide it.
        start: {"name", "same_classes"} of the model that was fine-tuned, or None.
        contents: key of the content of every training and validation case.
        quarantined: (axis, slice) pairs of label files that stay out of training, by case.
    """

    name: str
    settings: TrainingSettings
    task: Task
    cases: tuple[Case, ...]
    split: Split
    preprocessing: Preprocessing
    patch_size: tuple[int, ...]
    network: dict[str, Any]
    text: dict[str, Any]
    start: dict[str, Any] | None
    contents: dict[str, str]
    quarantined: dict[str, list[tuple[str, int]]] = dataclasses.field(default_factory=dict)

    @property
    def recipe(self) -> Recipe | None:
        """Of the images that are made from label maps; None where the setting is off."""
        return None if self.settings.synthesis is None else find_recipe(self.settings.synthesis, self.task)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON types."""
        return {
            "schema": CONFIG_SCHEMA,
            "name": self.name,
            "settings": self.settings.to_dict(),
            "task": self.task.to_dict(),
            "cases": [case.to_dict() for case in self.cases],
            "preprocessing": self.preprocessing.to_dict(),
            "patch_size": list(self.patch_size),
            "network": self.network,
            "text": self.text,
            "start": self.start,
            "contents": self.contents,
            "quarantined": {case: [list(place) for place in places] for case, places in self.quarantined.items()},
        }

    @classmethod
    def read(cls, folder: Path) -> RunConfig:
        """The configuration of a run folder.

        Raises:
            ForgettableSegError: RUN_MISMATCH if the folder holds no run or one of another version.
        """
        try:
            content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
            if content["schema"] != CONFIG_SCHEMA:
                msg = f"The run in {folder} was made by another version of ForgettableSeg and cannot be resumed."
                raise ForgettableSegError(ErrorCode.RUN_MISMATCH, msg)
            return cls(
                name=content["name"],
                settings=TrainingSettings.from_dict(content["settings"]),
                task=Task.from_dict(content["task"]),
                cases=tuple(Case.from_dict(entry) for entry in content["cases"]),
                split=Split.from_dict(split),
                preprocessing=Preprocessing.from_dict(content["preprocessing"]),
                patch_size=tuple(content["patch_size"]),
                network=content["network"],
                text=content["text"],
                start=content["start"],
                contents=content["contents"],
                quarantined={
                    case: [(axis, index) for axis, index in places]
                    for case, places in content.get("quarantined", {}).items()
                },
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            msg = f"{folder} holds no training run that can be read ({error})."
            raise ForgettableSegError(ErrorCode.RUN_MISMATCH, msg, hint="Choose the folder of a run.") from error

    def write(self, folder: Path) -> None:
        """Write config.json and split.json."""
        _write_json(folder / "split.json", self.split.to_dict())
        _write_json(folder / "config.json", self.to_dict())

    @property
    def parts(self) -> dict[str, list[Case]]:
        """The cases that are prepared: "train", "validation", and "unlabelled" where any are learnt from."""
        parts = {"train": self.select(self.split.train), "validation": self.select(self.split.validation)}
        unlabelled = [case for case in self.cases if case.label is None]
        return {**parts, "unlabelled": unlabelled} if unlabelled else parts

    def select(self, ids: Sequence[str]) -> list[Case]:
        """The cases with these ids, in their order."""
        by_id = {case.case_id: case for case in self.cases}
        return [by_id[case_id] for case_id in ids]


def configure(
    cases: CaseList,
    task: Task,
    *,
    name: str,
    settings: TrainingSettings,
    start: ModelPackage | None,
    split: Split | None,
    recorder: Recorder,
    device: torch.device,
    group: ProcessGroup,
    preprocessing: Preprocessing | None = None,
) -> tuple[RunConfig, TextEmbeddings, dict[str, torch.Tensor]]:
    """Everything that decides a run, except what the content of the cases says; and the texts' embeddings, by case.

    Args:
        cases, task, name, settings, start, split, preprocessing: see `run_training`.
        recorder: is told of what the user should know.
        device, group: see `run_training`; what the settings leave open is planned for them.

    Raises:
        ForgettableSegError: CASE_LIST_INVALID, TASK_INVALID or SETTING_INVALID where these do not fit each other.
    """
    labelled = tuple(case for case in cases if case.label is not None)
    if not labelled:
        msg = f"None of the {len(cases)} cases in {cases.source} has a label, so there is nothing to train on."
        raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, msg, hint="Give each case a label file.")
    split = split or split_cases(labelled, ratios=settings.split_ratios, seed=settings.seed)
    training = [case for case in labelled if case.case_id in set(split.train)]
    same_classes = start is not None and class_names(start.task) == class_names(task)
    if start is not None and len(start.task.channels) != len(task.channels):
        wanted = len(start.task.channels)
        msg = f"The model {start.name} takes {wanted} image channels, but the task has {len(task.channels)}."
        raise ForgettableSegError(ErrorCode.TASK_INVALID, msg, hint="Train from scratch or choose another model.")
    if start is not None:
        preprocessing = start.preprocessing
    elif preprocessing is None:

        def tell(done: int, of: int) -> None:
            recorder.listener.check_cancelled()
            recorder.progress("look at the training cases", done, of)

        preprocessing = planned_preprocessing(training, task, settings, progress=tell)
    preprocessing = dataclasses.replace(preprocessing, same_grid=settings.same_grid)
    if settings.spatial_dims is None:
        settings = dataclasses.replace(settings, spatial_dims=preprocessing.spatial_dims)
    if start is not None and preprocessing.spatial_dims != settings.spatial_dims:
        msg = f"The model {start.name} works in {preprocessing.spatial_dims}D only."
        hint = f"Set spatial_dims to {preprocessing.spatial_dims}, or train from scratch."
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, msg, hint=hint)
    prompts = [prompt_for(each, task.modality, settings.prompt_template) for each in task.classes]
    text = _embed(prompts, settings, start if same_classes else None)
    if text.warning:
        recorder.warning(text.warning)
    if settings.mirror_axes is None:
        settings = dataclasses.replace(settings, mirror_axes=planned_mirror_axes(task, preprocessing.sides_axis))
    settings, preprocessing = _planned(settings, training, task, preprocessing, start, recorder, device, group)
    told, told_by = encode_told(settings, training, text, start)
    length = len(next(iter(told.values()))) if told else TEXT_FREE_LENGTH
    network = _network_arguments(settings, task, text, start, same_classes=same_classes, length=length)
    config = RunConfig(
        name=name,
        settings=settings,
        task=task,
        cases=labelled + unlabelled_cases(cases, settings, recorder),
        split=split,
        preprocessing=preprocessing,
        patch_size=start.patch_size if start is not None else settings.patch_size,
        network=network.to_dict(),
        text={"source": text.source, "encoder": text.encoder, "prompts": list(text.prompts)}
        | ({"reports": told_by} if told_by else {}),
        start=None if start is None else {"name": start.name, "same_classes": same_classes},
        contents={},
    )
    return config, text, told


def refuse_used(folder: Path) -> None:
    """Refuse a folder that a new run cannot be put into.

    Raises:
        ForgettableSegError: RUN_MISMATCH if it holds a run already, OUTPUT_UNWRITABLE if it is a file.
    """
    if (folder / "config.json").exists():
        msg = f"The folder {folder} holds a training run already."
        raise ForgettableSegError(ErrorCode.RUN_MISMATCH, msg, hint="Resume that run, or choose another folder.")
    if folder.exists() and not folder.is_dir():
        raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, f"{folder} is a file, not a folder for a run.")


def refuse_changed(before: RunConfig, now: RunConfig, folder: Path) -> None:
    """Refuse to go on with a run whose cases are not what they were.

    Raises:
        ForgettableSegError: RUN_MISMATCH, naming the case.
    """
    for case_id, key in before.contents.items():
        if case_id not in now.contents:
            what = f"case {case_id} can no longer be read"
        elif now.contents[case_id] != key:
            what = f"the files of case {case_id} have changed since it began"
        else:
            continue
        msg = f"The run in {folder} cannot be resumed: {what}."
        raise ForgettableSegError(ErrorCode.RUN_MISMATCH, msg, hint="Restore the files, or start a new run.")


def class_names(task: Task) -> list[str]:
    """Names of the foreground classes, in the order of their indices."""
    return [each.name for each in task.classes]


def _embed(prompts: list[str], settings: TrainingSettings, start: ModelPackage | None) -> TextEmbeddings:
    """The prompts' embeddings; a model that keeps its classes keeps the ones it was trained with."""
    known = None if start is None else start.card["text"]
    if known and start.text is not None and all(map(same_prompt, known["prompts"], prompts)):
        learned = known["source"] == "learned"
        return TextEmbeddings(tuple(prompts), start.text, known["source"], known["encoder"], learned)
    return encode_prompts(
        prompts,
        source=settings.text,
        model=settings.text_model,
        pretrained=settings.text_pretrained,
        path=settings.text_path,
    )


def _planned(
    settings: TrainingSettings,
    training: Sequence[Case],
    task: Task,
    preprocessing: Preprocessing,
    start: ModelPackage | None,
    recorder: Recorder,
    device: torch.device,
    group: ProcessGroup,
) -> tuple[TrainingSettings, Preprocessing]:
    """The settings with nothing left open, and the preparation, coarser where the time asks for it; said in a line.

    All ranks plan for the slowest of them and the one with the least memory.
    """
    wanted = settings
    channels = len(task.channels) * (2 * settings.context_slices + 1)
    if start is not None:
        arguments = NetworkArguments.from_dict(start.card["network"])
        wanted = dataclasses.replace(settings, patch_size=start.patch_size)
        channels = arguments.in_channels * (2 * arguments.context_slices + 1)
        features = arguments.features
    else:
        features = settings.features or default_features(settings.spatial_dims, device)
    seconds = None
    if settings.minutes is not None:
        with torch.random.fork_rng():  # the plan must not change which weights the network begins with
            seconds = group.largest(
                measure_speed(features, channels=channels, spatial_dims=settings.spatial_dims, device=device)
            )
    plan = plan_training(
        prepared_shapes(training, preprocessing),
        wanted,
        features=features,
        channels=channels,
        device=device,
        memory=int(group.smallest(free_memory(device))),
        seconds_a_voxel=seconds,
        may_coarsen=start is None and settings.spacing is None,
    )
    if settings.batch_size is None:
        recorder.log(plan.reason)
    elif plan.is_too_large:
        recorder.warning(
            f"A batch of {settings.batch_size} patches of {' x '.join(map(str, plan.patch_size))} voxels may need more "
            "memory than there is; choose less of them, or leave batch_size out to have it planned."
        )
    share = max(1, plan.batch_size // group.world_size) * group.world_size
    batch_size = share if settings.batch_size is None else settings.batch_size
    chosen = dataclasses.replace(settings, batch_size=batch_size)
    if start is None:
        chosen = dataclasses.replace(chosen, patch_size=plan.patch_size, features=tuple(features))
    return chosen, coarser(preprocessing, plan.coarsening)


def _network_arguments(
    settings: TrainingSettings,
    task: Task,
    text: TextEmbeddings,
    start: ModelPackage | None,
    *,
    same_classes: bool,
    length: int,
) -> NetworkArguments:
    """The architecture of the settings, or the one that the start's weights belong to, for the classes of the task.

    Prototypes that guide it have responses of `length` numbers, or as many as those of the start. Of an ensemble, other
    classes start from its first network: there is nothing yet that several could agree on.
    """
    fusion = settings.fusion_mode
    if start is not None:
        before = NetworkArguments.from_dict(start.card["network"])
        if before.members and not same_classes:
            before = dataclasses.replace(before, members=(), mirror_axes=before.members[0])
        if not same_classes:
            sides = {start.preprocessing.sides_axis} - set(planned_mirror_axes(task, start.preprocessing.sides_axis))
            kept = tuple(axis for axis in before.mirror_axes if axis not in sides)
            before = dataclasses.replace(before, mirror_axes=kept)
        fusion, length = before.fusion, (before.text_shape or (0, length))[1]
    prototypes = before.prototypes if start is not None else PROTOTYPES * (settings.guidance == "psa")
    prototypes = 0 if fusion == "none" else prototypes
    text_shape = (task.num_classes - 1, length) if prototypes else tuple(text.vectors.shape)
    of_classes = {
        "out_channels": task.num_classes,
        "text_shape": None if fusion == "none" else text_shape,
        "text_learned": text.learned and fusion != "none" and not prototypes,
        "prototypes": prototypes,
        "distributions": settings.aux_loss == "scdl",
        "memory": settings.memory == "class" or (start is not None and before.memory),
    }
    if start is not None and before.members and (of_classes["distributions"] or settings.memory != "none"):
        msg = f"The model {start.name} is an average of several networks, which learn nothing of the classes together."
        hint = "Leave aux_loss and memory out, or train from scratch."
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, msg, hint=hint)
    if start is not None:
        return dataclasses.replace(before, **of_classes)
    return NetworkArguments(
        spatial_dims=settings.spatial_dims,
        in_channels=len(task.channels),
        features=settings.features,
        fusion=fusion,
        num_heads=settings.num_heads,
        architecture=settings.architecture,
        window=settings.patch_size if settings.architecture == "unetr" else None,
        context_slices=settings.context_slices,
        mirror_axes=settings.mirror_axes,
        deep_supervision=settings.deep_supervision and settings.architecture == "unet",
        **of_classes,
    )


def _write_json(path: Path, content: Any) -> None:
    with whole_text_file(path) as stream:
        stream.write(json.dumps(content, indent=1, allow_nan=False))
