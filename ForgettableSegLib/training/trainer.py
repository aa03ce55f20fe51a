"""The training loop: Algorithm 1, with what a clinic's machine needs around it."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ForgettableSegLib.cases.cache import PreparedCase
from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.training.budget import Stopwatch, TimeBudget
from ForgettableSegLib.training.checkpoint import CheckpointFolder
from ForgettableSegLib.training.consistency import UnlabelledPatches
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.dynamics import LearningDynamics
from ForgettableSegLib.training.gradients import Learner, Pass, scheduled_rate
from ForgettableSegLib.training.miner import Miner, MiningReport
from ForgettableSegLib.training.patches import Batch, PatchReader, PatchSampler, Prefetcher
from ForgettableSegLib.training.recorder import Recorder
from ForgettableSegLib.training.settings import TrainingSettings
from ForgettableSegLib.training.synthesis import ImageSynthesis
from ForgettableSegLib.training.tables import bank_entries
from ForgettableSegLib.training.trainer_parts import make_augmentation, make_fitter, make_writer, scored_features
from ForgettableSegLib.training.validation import validation_dice

VALIDATIONS_A_RUN = 10
# The number of steps that a time is enough for is told from their mean duration with this memory.
SPEED_DECAY = 0.9


class Trainer:
    """Trains a network; all state that a resumed run needs is here.

    Args:
        network: a TextGuidedUNet on the device.
        settings: of the run.
        reader: the training cases' patches.
        validation_cases: cases that choose the best model; none keeps the last.
        class_names: of the foreground classes.
        patch_size: voxels an axis.
        device: where to compute.
        group: the processes of the run.
        recorder: events and files.
        unlabelled: patches of cases without labels, None where none are learnt from.
        texts: (cases, L) embeddings of what is said of the training cases, zeros where nothing is; None without any.
        judge_start: whether the network that training starts from is a model already, and one of those to choose from.
        checkpoints: where the state is kept.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        settings: TrainingSettings,
        reader: PatchReader,
        validation_cases: Sequence[PreparedCase],
        class_names: Sequence[str],
        patch_size: Sequence[int],
        device: torch.device,
        group: ProcessGroup,
        recorder: Recorder,
        checkpoints: CheckpointFolder,
        unlabelled: UnlabelledPatches | None = None,
        texts: Tensor | None = None,
        judge_start: bool = False,
    ) -> None:
        if settings.batch_size % group.world_size:
            msg = f"The batch size {settings.batch_size} cannot be shared evenly by {group.world_size} processes."
            raise ForgettableSegError(ErrorCode.SETTING_INVALID, msg, hint="Choose a multiple of it.")
        self.network = network
        self.settings = settings
        self.reader = reader
        self.validation_cases = list(validation_cases)
        self.class_names = list(class_names)
        self.patch_size = tuple(patch_size)
        self.device = device
        self.group = group
        self.recorder = recorder
        self.checkpoints = checkpoints
        self.unlabelled = unlabelled
        self.judge_start = judge_start
        num_classes = len(self.class_names) + 1
        self.batch_size = settings.batch_size // group.world_size
        self.sampler = PatchSampler(
            reader,
            batch_size=settings.batch_size,
            foreground_share=settings.foreground_oversampling,
            seed=settings.seed,
            rank=group.rank,
            world_size=group.world_size,
        )
        self.augmentation = make_augmentation(settings, network, reader)
        self.synthesis = None if reader.recipe is None else ImageSynthesis(reader.recipe, reader.context_slices)
        features = scored_features(settings, network)
        self.miner = Miner(
            settings,
            num_classes=num_classes,
            feature_size={"logits": num_classes, "penultimate": network.feature_size}.get(features, 0),
            num_slices=reader.num_slices,
            batch_size=self.batch_size,
            group=group,
            device=device,
        )
        self.miner.bank.quarantine(reader.quarantined_slices)
        epoch = self.sampler.iterations_per_epoch
        self.dynamics = LearningDynamics(
            reader.cases, settings, epoch=epoch, patch_size=patch_size, device=device, group=group
        )
        self.learner = Learner(network, settings, device=device, group=group, features=features, warn=recorder.warning)
        self.writer = make_writer(settings, network, group)
        self.fitter = make_fitter(settings, self.learner, reader, texts, device)
        self.iteration = 0
        self.planned = self._planned_iterations()
        self.budget: TimeBudget | None = None  # given before the first step where the length is a time
        self.stopwatch = Stopwatch()
        self.elapsed_s = 0.0
        self.seconds_a_step = 0.0
        self.validations = 0
        self.best: dict[str, Any] | None = None
        self.validated_at = 0
        self.last_dice: float | None = None

    def run(self) -> None:
        """Train to the end, or until the listener cancels; the state is on the disk either way.

        Raises:
            Cancelled: after the checkpoint was written.
            ForgettableSegError: OUT_OF_MEMORY, DISK_FULL; the last checkpoint stays.
        """
        self.stopwatch = Stopwatch(self.elapsed_s)
        prefetcher = Prefetcher(self.reader, self.sampler)
        try:
            if self.judge_start and self.iteration == 0 and self.best is None:
                self._validate()
            for iteration, batch in prefetcher.batches(self.iteration, self.planned or sys.maxsize):
                self._safe_point()
                if self._is_finished():
                    break
                if self._validation_due():
                    self._validate()
                self._look()
                begun = time.monotonic()
                self._train_iteration(iteration, batch)
                self._measure(time.monotonic() - begun)
            if self.budget is None:  # else the time is over
                self._look()
            if self.dynamics.looks:
                self.recorder.log(self.dynamics.summary(self.elapsed_s))
            if self.validated_at != self.iteration:
                self._validate()
        except Cancelled:
            self.save()
            raise
        self.save()

    @property
    def total(self) -> int:
        """How many steps there will be: planned, or what the time is enough for at the speed of the last ones."""
        if self.planned is not None:
            return self.planned
        if self.budget is None or not self.seconds_a_step:
            return self.iteration + 1
        return self.budget.expected_steps(self.iteration, self.elapsed_s, self.seconds_a_step)

    def _measure(self, seconds: float) -> None:
        """Time passes for all ranks as for the slowest."""
        self.elapsed_s = self.stopwatch.read()
        if self.budget is not None:
            self.elapsed_s = self.group.largest(self.elapsed_s)
        decay = SPEED_DECAY if self.seconds_a_step else 0.0
        self.seconds_a_step = decay * self.seconds_a_step + (1 - decay) * seconds

    def _train_iteration(self, iteration: int, batch: Batch) -> None:
        """Algorithm 1, lines 3 to 14."""
        self._set_learning_rate()
        batch = self._prepared(batch, iteration)
        told = None
        if self.fitter is not None:
            self.fitter.follow(self.learner.done)
            told = self.fitter.told(batch.references, self.sampler.draw(iteration))
        main = self.learner.forward_backward(batch, told=told)
        report = self.miner.observe(iteration, batch, main.logits, main.features, main.losses)
        if self.writer is not None:
            self.writer.write(main.bottleneck, batch.labels, main.loss)
        replayed = None
        if self.miner.replay_due(iteration):
            replay = self._replay_batch(iteration)
            weight = self.settings.replay_weight * len(replay.ids) / self.batch_size
            replayed = self.learner.forward_backward(replay, weight=weight)
            self.miner.rescore(iteration, replay, replayed.logits, replayed.features, replayed.losses)
        consistency = self.learner.learn_from_views(self.unlabelled.views(iteration)) if self.unlabelled else None
        self.learner.update()
        self.iteration = iteration + 1
        self._after_iteration(main, replayed, consistency, report)

    def _prepared(self, batch: Batch, iteration: int, *, replay: bool = False) -> Batch:
        """The batch on the device, augmented with draws that depend on seed, rank and iteration alone."""
        images, labels = batch.images.to(self.device), batch.labels.to(self.device)
        draw = self.sampler.draw(iteration, replay=replay)
        if self.synthesis is not None:
            images, labels = self.synthesis(images, labels, self.reader.are_label_maps[batch.references[:, 0]], draw)
        images, labels = self.augmentation(images, labels, draw)
        return Batch(images, labels, batch.references, batch.ids)

    def _replay_batch(self, iteration: int) -> Batch:
        """Line 12: a batch of the bank, cut out again and augmented afresh, or the very patches that were stored."""
        replay = self.miner.bank.sample(self.batch_size, iteration=iteration, allow_partial=True)
        if self.settings.store == "reference":
            draw = self.sampler.draw(iteration, replay=True)
            return self._prepared(self.reader.read(replay.payload["references"], draw), iteration, replay=True)
        images, labels = replay.payload["images"].float(), replay.payload["labels"]
        return Batch(images.to(self.device), labels.to(self.device), torch.empty(0), replay.ids)

    def _look(self) -> None:
        """Look at what is learnt and forgotten, when it is time for that."""
        if self.dynamics.due(self.iteration, self._done):
            on_case = partial(self._tell_case, "look at the training cases")
            self.dynamics.look(self.learner.judged, elapsed_s=self.elapsed_s, on_case=on_case)

    @property
    def _done(self) -> float:
        """Share of the steps, or of the time, that is over."""
        return self.iteration / self.planned if self.planned else self.budget.done(self.elapsed_s)

    def _set_learning_rate(self) -> None:
        """The schedule's rate after the share of the training that is over."""
        self.learner.done = self._done
        self.learner.learning_rate = scheduled_rate(self.settings, self.learner.done)

    def _after_iteration(
        self, main: Pass, replayed: Pass | None, consistency: float | None, report: MiningReport
    ) -> None:
        settings, iteration = self.settings, self.iteration - 1
        if not math.isfinite(main.loss):
            msg = f"The loss became {main.loss} at iteration {iteration}, so this training cannot go on."
            raise ForgettableSegError(ErrorCode.SETTING_INVALID, msg, hint="Train with a smaller learning_rate.")
        row: dict[str, float] = {
            "iteration": iteration,
            "learning_rate": self.learner.learning_rate,
            "main_loss": main.loss,
            "loss": main.loss + (replayed.loss * replayed.weight if replayed else 0.0),
        }
        if replayed:
            row["replay_loss"] = replayed.loss
        if main.auxiliary is not None:
            row["aux_loss"] = main.auxiliary
        if consistency is not None:
            row["consistency_loss"] = consistency
        if settings.pbs:
            row.update(zip(("T1", "T2", "T3", "T4", "score"), report.scores.tolist(), strict=True))
        if settings.fsb:
            row.update(admitted=report.admitted, suspects=report.suspects, bank_size=len(self.miner.bank))
        if self.validated_at == iteration and self.last_dice is not None:
            row["validation_dice"] = self.last_dice
        self.recorder.iteration(row, replays=int(self.miner.replays.sum()), capacity=self.miner.bank.capacity)
        if self.planned is not None or self.seconds_a_step:  # else nobody knows yet how many there will be
            self.recorder.progress("train", self.iteration, self.total)
        if self.iteration % settings.checkpoint_every == 0:
            self.save()

    def _validation_due(self) -> bool:
        if self.validated_at == self.iteration:
            return False
        if self.budget is not None and self.settings.validate_every is None:
            return self.budget.validation_due(self.budget.done(self.elapsed_s), self.validations)
        interval = self.settings.validate_every or max(1, math.ceil(self.total / VALIDATIONS_A_RUN))
        return self.iteration % interval == 0

    def _validate(self) -> None:
        """Keep the model if it is the best so far, and tell the Dice of each class.

        Cancelled in the middle, it is done again when the run is resumed.
        """
        begun = self.stopwatch.read()
        dice = self.measure_dice(self.validation_cases) if self.validation_cases else []
        if self.budget is not None:
            self.budget.correct(self.group.largest(self.stopwatch.read() - begun))
        known = [value for value in dice if not math.isnan(value)]
        self.last_dice = sum(known) / len(known) if known else None
        self.validated_at = self.iteration
        self.validations += self.iteration > 0  # that of the start is none of those spread over the time
        # Without a measure the last model is the best one.
        if self.best is None or self.last_dice is None or self.last_dice > self.best["mean"]:
            self.best = self._snapshot(self.last_dice or 0.0, dice)
        if self.last_dice is not None:
            by_class = dict(zip(self.class_names, dice, strict=True))
            self.recorder.metric("validation", self.iteration, {"mean": self.last_dice, **by_class})
        if self.settings.fsb and self.iteration:
            entries = bank_entries(self.reader, self.miner, self.class_names, self.iteration)
            self.recorder.bank(self.iteration, entries)

    def _tell_case(self, phase: str, done: int, of: int) -> None:
        if not self.group.is_distributed:
            self._safe_point()
        self.recorder.progress(phase, done, of)

    def measure_dice(self, cases: Sequence[PreparedCase]) -> list[float]:
        """Mean Dice of each class over whole cases, see `validation_dice`."""
        return validation_dice(
            self.learner.judged,
            cases,
            num_classes=len(self.class_names) + 1,
            spatial_dims=self.settings.spatial_dims,
            patch_size=self.patch_size,
            device=self.device,
            group=self.group,
            on_case=partial(self._tell_case, "validate the model"),
        )

    def _snapshot(self, mean: float, dice: list[float]) -> dict[str, Any]:
        plain = {"memory_format": torch.contiguous_format}  # whatever order a step takes least time in
        state = self.learner.judged.state_dict()
        weights = {name: tensor.detach().cpu().clone(**plain) for name, tensor in state.items()}
        prototypes = self.miner.prototypes.state_dict()
        return {
            "iteration": self.iteration,
            "mean": mean,
            "dice": dice,
            "network": weights,
            "prototypes": {name: tensor.cpu().clone() for name, tensor in prototypes.items()},
        }

    def _safe_point(self) -> None:
        """Stop here if the listener wants it; all ranks at the same iteration."""
        listener = self.recorder.listener
        if not self.group.is_distributed:
            self.stopwatch.without(listener.check_cancelled)
        elif self.group.any(listener.is_cancelled):
            raise Cancelled

    def _planned_iterations(self) -> int | None:
        """Steps of the run; None where its length is a time."""
        settings = self.settings
        if settings.minutes is not None:
            return None
        if settings.epochs is not None:
            return settings.epochs * self.sampler.iterations_per_epoch
        return settings.iterations

    def _is_finished(self) -> bool:
        return self.iteration >= self.planned if self.planned else self.budget.done(self.elapsed_s) >= 1

    def save(self) -> None:
        """Write a checkpoint."""
        self.recorder.flush()
        self.checkpoints.save(self.state_dict(), self.iteration)

    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on with bit for bit, as tensors and plain types.

        What an iteration draws depends on its number alone, so there is no state of a loader.
        """
        return {
            "settings": self.settings.to_dict(),
            "iteration": self.iteration,
            "budget": None if self.budget is None else dataclasses.asdict(self.budget),
            "elapsed_s": self.elapsed_s,
            "seconds_a_step": self.seconds_a_step,
            "validations": self.validations,
            "learner": self.learner.state_dict(),
            "miner": self.miner.state_dict(),
            "dynamics": self.dynamics.state_dict(),
            "fitter": None if self.fitter is None else self.fitter.state_dict(),
            "writer": None if self.writer is None else self.writer.state_dict(),
            "best": self.best,
            "validated_at": self.validated_at,
            "last_dice": self.last_dice,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.iteration = state["iteration"]
        self.budget = TimeBudget(**state["budget"]) if state.get("budget") else None
        self.elapsed_s, self.seconds_a_step = state["elapsed_s"], state.get("seconds_a_step", 0.0)
        self.validations = state.get("validations", 0)
        self.learner.load_state_dict(state["learner"])
        self.miner.load_state_dict(state["miner"])
        if "dynamics" in state:  # written by a version that has them
            self.dynamics.load_state_dict(state["dynamics"])
        for name in ("writer", "fitter"):
            if getattr(self, name) is not None:
                getattr(self, name).load_state_dict(state[name])
        self.best = state["best"]
        self.validated_at, self.last_dice = state["validated_at"], state["last_dice"]
        torch.set_rng_state(state["random"])
        if state["random_cuda"] and torch.cuda.device_count() == len(state["random_cuda"]):
            torch.cuda.set_rng_state_all(state["random_cuda"])
