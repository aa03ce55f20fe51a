"""A training run: from a list of cases to a trained model, in a folder from which it can be resumed."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from ForgettableSegLib.cases.cache import CaseCache, PreparedCase
from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.cases.findings import hearing
from ForgettableSegLib.cases.preprocessing import Preprocessing, prepare_case
from ForgettableSegLib.cases.split import Split, split_cases
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.memory import peak_memory
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.backbones import Backbone
from ForgettableSegLib.network.build import build_network, transfer_weights
from ForgettableSegLib.network.ensemble import Ensemble
from ForgettableSegLib.network.unet import TextGuidedUNet
from ForgettableSegLib.resources import user_cache_dir
from ForgettableSegLib.text.case_texts import read_texts, write_texts
from ForgettableSegLib.training.budget import TimeBudget
from ForgettableSegLib.training.checkpoint import CheckpointFolder, require_space
from ForgettableSegLib.training.config import RunConfig, class_names, configure, refuse_changed, refuse_used
from ForgettableSegLib.training.consistency import UnlabelledPatches
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.patches import PatchReader
from ForgettableSegLib.training.recorder import Listener, Recorder
from ForgettableSegLib.training.settings import TrainingSettings
from ForgettableSegLib.training.synthetic_cases import with_synthetic_images
from ForgettableSegLib.training.tables import write_tables
from ForgettableSegLib.training.told import told_by_case
from ForgettableSegLib.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """What a finished run hands over.

    Args:
        config: of the run.
        folder: of the run.
        network: the best model by validation Dice, on the CPU.
        prototypes: of the best model: {"mean" (C, D), "variance" (C,), "count" (C,)}.
        validation_cases: prepared, for the calibration of heatmaps.
        validation_dice: mean of the best model, None without validation cases.
        best_iteration, iterations: when it was best (0: before the first iteration), and how long the run was.
        seconds: spent training, over all sittings.
        peak_memory_bytes: the most that this process has held.
    """

    config: RunConfig
    folder: Path
    network: TextGuidedUNet | Backbone | Ensemble
    prototypes: dict[str, torch.Tensor]
    validation_cases: list[PreparedCase]
    validation_dice: float | None
    best_iteration: int
    iterations: int
    seconds: float
    peak_memory_bytes: int

    @property
    def kept_start(self) -> bool:
        """Whether no iteration validated better than the model to start from, whose weights these are then."""
        judged = self.config.start is not None and self.config.start["same_classes"]
        return judged and self.validation_dice is not None and self.best_iteration == 0


def run_training(
    *,
    cases: CaseList,
    task: Task,
    folder: Path,
    name: str,
    settings: TrainingSettings,
    device: torch.device,
    listener: Listener,
    start: ModelPackage | None = None,
    split: Split | None = None,
    group: ProcessGroup | None = None,
    cache: Path | None = None,
    started: float | None = None,
    preprocessing: Preprocessing | None = None,
    quarantined: Mapping[str, Sequence[tuple[str, int]]] | None = None,
) -> TrainingOutcome:
    """Train a new model, or go on from a model package.

    Args:
        cases: labelled cases, and perhaps some without a label, see `unlabelled_ratio`.
        task: what to segment.
        folder: of the run; must not hold another run.
        name: of the model that comes out.
        settings: of the training.
        device: where to compute.
        listener: who follows the run.
        start: a model to fine-tune: its preprocessing, patch size and architecture are kept.
        split: which cases do what; drawn by the settings' ratios and seed if None.
        group: the processes of a distributed run.
        cache: where prepared cases are kept; the user's cache folder if None.
        started: when the job began, as `time.monotonic` tells, from which its minutes count; None takes this moment.
        preprocessing: of a training from scratch; planned from the training cases if None.
        quarantined: (axis, slice) pairs of label files that enter neither loss nor bank, by case.

    Raises:
        ForgettableSegError: with a sentence for the user.
        Cancelled: the run can be resumed.
    """
    started = time.monotonic() if started is None else started
    group = group or ProcessGroup()
    with _locked(folder, group):
        try:
            refuse_used(folder)
        finally:
            group.wait()  # before rank 0 writes what the others look for
        recorder = Recorder(listener, folder, is_main=group.is_main)
        _seed(settings.seed)
        if split is None:
            labelled = [case for case in cases if case.label is not None]
            split = split_cases(labelled, ratios=settings.split_ratios, seed=settings.seed) if labelled else None
        if split is not None:
            cases = with_synthetic_images(
                cases,
                task,
                settings.synthesis,
                split,
                folder,
                write=group.is_main,
                progress=lambda done, of: recorder.progress("make images", done, of),
            )
            group.wait()
        config, text, told = configure(
            cases,
            task,
            name=name,
            settings=settings,
            start=start,
            split=split,
            recorder=recorder,
            device=device,
            group=group,
            preprocessing=preprocessing,
        )
        config = dataclasses.replace(config, quarantined={case: list(own) for case, own in (quarantined or {}).items()})
        network = build_network(config.network)
        network.set_text(text.vectors)
        if start is not None:
            source = start.network()
            if isinstance(source, Ensemble) and not isinstance(network, Ensemble):
                source = source.members[0]
            renewed = transfer_weights(source, network, same_classes=config.start["same_classes"])
            if renewed:
                recorder.log(f"Started from {start.name}; new weights for: {', '.join(renewed)}.")
        prepared, config = _prepare(config, recorder, cache)
        if group.is_main:
            config.write(folder)
            write_texts(folder, told)
        trainer = _trainer(config, folder, network, prepared, device, group, recorder, told)
        if start is not None and start.prototypes and config.start["same_classes"] and _same_features(start, settings):
            trainer.miner.prototypes.load_state_dict(start.prototypes)
        if settings.minutes is not None:
            trainer.budget = _time_budget(trainer, config, started)
        return _train(trainer, config, folder, prepared)


def resume_training(
    *,
    folder: Path,
    device: torch.device,
    listener: Listener,
    group: ProcessGroup | None = None,
    cache: Path | None = None,
) -> TrainingOutcome:
    """Go on with a run where its last checkpoint left it.

    Args:
        folder, device, listener, group, cache: see `run_training`.

    Raises:
        ForgettableSegError: RUN_MISMATCH if a case or a setting has changed, naming it; CHECKPOINT_INVALID.
        Cancelled: the run can be resumed again.
    """
    group = group or ProcessGroup()
    config = RunConfig.read(folder)
    with _locked(folder, group):
        recorder = Recorder(listener, folder, is_main=group.is_main)
        prepared, now = _prepare(config, recorder, cache)
        refuse_changed(config, now, folder)
        network = build_network(config.network)
        trainer = _trainer(config, folder, network, prepared, device, group, recorder, read_texts(folder))
        state = trainer.checkpoints.load_common(group, recorder.warning)
        if state is None:
            msg = f"The run in {folder} was cut off before its first checkpoint."
            raise ForgettableSegError(ErrorCode.CHECKPOINT_INVALID, msg, hint="Start it again in a new folder.")
        # Settings that an older version did not know have their defaults there.
        before = TrainingSettings.from_dict(state["settings"]).to_dict()
        difference = _difference(before, config.settings.to_dict(), "setting")
        if difference:
            raise ForgettableSegError(ErrorCode.RUN_MISMATCH, f"The run in {folder} cannot be resumed: {difference}")
        trainer.load_state_dict(state)
        recorder.rewind(trainer.iteration)
        recorder.log(f"Resumed at iteration {trainer.iteration}.")
        return _train(trainer, config, folder, prepared)


def _same_features(start: ModelPackage, settings: TrainingSettings) -> bool:
    """Whether prototypes of the model are means of what this run takes means of."""
    before = {"prototypes": "ema", **start.card.get("training", {})}
    kinds = ("score_mode", "score_features", "prototypes")
    return all(before.get(kind) == getattr(settings, kind) for kind in kinds)


def _prepare(
    config: RunConfig, recorder: Recorder, cache: Path | None
) -> tuple[dict[str, list[PreparedCase]], RunConfig]:
    """The cases of each part, prepared; a case that cannot be is told of and left out."""
    prepared: dict[str, list[PreparedCase]] = {}
    contents: dict[str, str] = {}
    store = CaseCache(cache or user_cache_dir() / "cases")
    for part, wanted in config.parts.items():

        def tell(done: int, of: int, case_id: str, part: str = part) -> None:
            recorder.listener.check_cancelled()
            recorder.progress(f"prepare {part} cases", done, of)

        with hearing(lambda finding: recorder.warning(finding.message)):
            prepared[part] = store.prepare(
                wanted,
                config.task,
                config.preprocessing,
                recipe=config.recipe,
                progress=tell,
                on_error=lambda case, error: recorder.listener.case_failed(case.case_id, error),
            )
        contents.update({case.case_id: case.key for case in prepared[part]})
    if not prepared["train"]:
        msg = "None of the training cases can be used; the messages above say why."
        raise ForgettableSegError(ErrorCode.CASE_INVALID, msg)
    return prepared, dataclasses.replace(config, contents=contents)


def _trainer(
    config: RunConfig,
    folder: Path,
    network: TextGuidedUNet | Backbone | Ensemble,
    prepared: Mapping[str, list[PreparedCase]],
    device: torch.device,
    group: ProcessGroup,
    recorder: Recorder,
    told: Mapping[str, torch.Tensor],
) -> Trainer:
    require_space(folder, network)
    checkpoints = CheckpointFolder(folder / "checkpoint", f"rank{group.rank}" if group.is_distributed else "")
    readers = {
        part: PatchReader(
            prepared[part],
            config.patch_size,
            context_slices=config.network.get("context_slices", 0),
            recipe=config.recipe,
            sides_axis=config.preprocessing.sides_axis,
            quarantined=config.quarantined,
        )
        for part in ("train", "unlabelled")
        if prepared.get(part)
    }
    unlabelled = readers.get("unlabelled")
    return Trainer(
        network=network.to(device),
        settings=config.settings,
        reader=readers["train"],
        unlabelled=unlabelled
        and UnlabelledPatches(unlabelled, config.settings, network=network, group=group, device=device),
        texts=told_by_case(told, prepared["train"]),
        validation_cases=prepared["validation"],
        class_names=class_names(config.task),
        patch_size=config.patch_size,
        device=device,
        group=group,
        recorder=recorder,
        checkpoints=checkpoints,
        judge_start=config.start is not None and config.start["same_classes"],
    )


def _time_budget(trainer: Trainer, config: RunConfig, started: float) -> TimeBudget:
    """What the minutes leave for the steps, from how long a case takes to be read and to be segmented here."""
    cases, group = trainer.validation_cases, trainer.group
    reading = segmenting = 0.0
    if cases:
        begun = time.monotonic()
        trainer.measure_dice(cases[:1])
        segmenting = time.monotonic() - begun
        begun = time.monotonic()
        prepare_case(config.select([cases[0].case_id])[0], config.task, config.preprocessing)
        reading = time.monotonic() - begun
    images = 2 ** len(config.network["mirror_axes"])
    judged = len(config.split.test or config.split.validation)
    # Segmenting a case for its user reads it, brings the result back and averages over mirror images; calibration is
    # as much work without reading.
    afterwards = len(cases) * segmenting * (1 + images) + judged * (2 * reading + images * segmenting)
    return TimeBudget.plan(
        minutes=config.settings.minutes,
        spent=group.largest(time.monotonic() - started),
        validation=group.largest(len(cases) * segmenting / group.world_size),
        afterwards=group.largest(afterwards),
    )


def _train(
    trainer: Trainer, config: RunConfig, folder: Path, prepared: Mapping[str, list[PreparedCase]]
) -> TrainingOutcome:
    try:
        trainer.run()
    finally:
        if trainer.group.is_main:
            write_tables(trainer, folder)
    best = trainer.best
    if not best["prototypes"]["count"].any():  # the model to start from had none, and no iteration was better
        best["prototypes"] = {name: each.cpu() for name, each in trainer.miner.prototypes.state_dict().items()}
    network = build_network(config.network)
    network.load_state_dict(best["network"])
    return TrainingOutcome(
        config=config,
        folder=folder,
        network=network.eval(),
        prototypes=best["prototypes"],
        validation_cases=prepared["validation"],
        validation_dice=best["mean"] if best["dice"] else None,
        best_iteration=best["iteration"],
        iterations=trainer.iteration,
        seconds=trainer.elapsed_s,
        peak_memory_bytes=peak_memory(),
    )


@contextmanager
def _locked(folder: Path, group: ProcessGroup) -> Iterator[None]:
    """Keep other runs out of the folder; the system lets go of the lock when this process dies."""
    if not group.is_main:
        group.wait()
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        msg = f"Another training is running in {folder}."
        raise ForgettableSegError(ErrorCode.RUN_LOCKED, msg, hint="Wait for it, or choose another folder.") from error
    except OSError as error:
        msg = f"The run folder {folder} cannot be written: {error.strerror or error}."
        raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, msg, hint="Choose another folder.") from error
    group.wait()
    try:
        yield
    finally:
        lock.release()


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> str:
    for name in sorted(set(before) | set(now)):
        if before.get(name) != now.get(name):
            return f"the {what} '{name}' was {before.get(name)!r} and is {now.get(name)!r} now."
    return ""


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
