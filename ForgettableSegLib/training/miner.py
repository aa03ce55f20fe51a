"""Prototype-based scoring and the forgettable sample bank (PBS and FSB), as a training run uses them.

The equations stand in `mining`; here they are put in the order of Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ForgettableSegLib.mining.bank import SampleBank
from ForgettableSegLib.mining.forgetting import ForgettingStatistics, is_correct, true_class_confidence
from ForgettableSegLib.mining.prototypes import IGNORE_LABEL, LearnedPrototypes, Prototypes, centred
from ForgettableSegLib.mining.scores import TERMS, TermStatistics, difficulty_scores
from ForgettableSegLib.mining.selection import (
    DIFFICULTY_SELECTIONS,
    HardCount,
    ScoreHistory,
    Selected,
    admission_is_open,
    select,
)
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.patches import Batch
from ForgettableSegLib.training.settings import TrainingSettings

# The band of admission is a window of quantiles of the recent scores. They fall while the network learns, so a long
# memory would put every new sample below the window; a short one gives noisy quantiles.
RECENT_BATCHES = 8
MIN_RECENT_SCORES = 64


@dataclass(frozen=True)
class MiningReport:
    """What mining did in an iteration: mean scores (T1..T4, sum), samples admitted, suspects found."""

    scores: Tensor
    admitted: int
    suspects: int


class Miner:
    """Scores every batch, keeps the hard samples of this rank and hands them out again.

    Args:
        settings: of the run.
        num_classes: C, background included.
        feature_size: D of the features that the prototypes are means of; 0 where the network has learnt them itself.
        num_slices: ids of samples run from 0 to this number.
        batch_size: samples a batch on this rank.
        group: the processes of the run.
        device: where the logits are.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        *,
        num_classes: int,
        feature_size: int,
        num_slices: int,
        batch_size: int,
        group: ProcessGroup,
        device: torch.device,
    ) -> None:
        self.settings = settings
        self.group = group
        self.batch_size = batch_size
        kind = Prototypes if feature_size else LearnedPrototypes
        self.prototypes = kind(
            num_classes,
            feature_size,
            beta=settings.prototype_beta,
            warm_up=settings.prototype_warm_up,
            device=device,
        )
        self.term_statistics = TermStatistics(beta=settings.prototype_beta)
        self.history = ForgettingStatistics(num_slices)
        self.hard_count = HardCount(settings.rho)
        self.score_history = ScoreHistory(max(MIN_RECENT_SCORES, RECENT_BATCHES * batch_size))
        self.generator = torch.Generator().manual_seed(settings.seed + group.rank)
        self.bank = SampleBank(
            settings.bank_batches * batch_size,
            replacement=settings.replacement,
            store=settings.store,
            seed=settings.seed + group.rank,
        )
        self.last_score = torch.full((num_slices,), torch.nan)
        self.replays = torch.zeros(num_slices, dtype=torch.int64)

    def observe(
        self, iteration: int, batch: Batch, logits: Tensor, features: Tensor | None, losses: Tensor
    ) -> MiningReport:
        """Lines 5 to 10 of Algorithm 1: update the prototypes, score the batch, admit its hard samples.

        Args:
            iteration: number of the iteration.
            batch: the main batch, as it was trained on.
            logits: (B, C, *S), detached.
            features: (B, D, *S) or distances (B, C, *S), detached; None where the prototypes are means of the logits.
            losses: (B,) cross-entropies.
        """
        settings = self.settings
        scores = torch.zeros(len(losses), 5)
        if settings.pbs:
            self.prototypes.update(self._features(logits, features), batch.labels, self.group.sum)
            scores = self._score(logits, features, batch.labels, update=True)
            self.last_score[batch.ids] = scores[:, 4]
        correct, confidence = is_correct(logits, batch.labels), true_class_confidence(logits, batch.labels)
        self.history.update(batch.ids, correct, confidence)
        if not settings.fsb:
            return MiningReport(scores.mean(0), 0, 0)
        chosen = self._select(batch, scores, losses)
        self._admit(iteration, batch, chosen)
        self.history.suspect(batch.ids[chosen.suspects])
        return MiningReport(scores.mean(0), len(chosen.admitted), len(chosen.suspects))

    def _select(self, batch: Batch, scores: Tensor, losses: Tensor) -> Selected:
        settings = self.settings
        number = self.hard_count.next(len(losses))
        # Classes that no batch has shown so far do not hold the admission up.
        is_open = not settings.pbs or admission_is_open(
            self.prototypes.count, minimum=settings.prototype_min_count, exists=self.prototypes.initialised
        )
        chosen = select(
            scores,
            losses,
            ((batch.labels > 0) & (batch.labels != IGNORE_LABEL)).flatten(1).sum(1),
            number,
            selection=settings.selection,
            admission=settings.admission,
            window=settings.admission_window,
            history=self.score_history,
            ids=batch.ids,
            forgetting=self.history,
            eligible=self.bank.may_enter(batch.ids),
            is_open=is_open,
            generator=self.generator,
        )
        if is_open:
            self.hard_count.give_back(number - len(chosen.admitted), len(losses))
        return chosen

    def replay_due(self, iteration: int) -> bool:
        """Whether this iteration replays: every F iterations, once the banks of all ranks hold enough."""
        due = self.settings.fsb and (iteration + 1) % self.settings.replay_period == 0
        enough = 1 if self.settings.allow_partial else self.batch_size
        return due and self.group.smallest(len(self.bank)) >= enough

    def rescore(self, iteration: int, replay: Batch, logits: Tensor, features: Tensor | None, losses: Tensor) -> None:
        """Bring the bank's scores up to date with a replay, whose forward pass is there anyway.

        What has become easier than the median of the recent samples leaves the bank.

        Args:
            iteration: number of the iteration.
            replay: the replayed batch, as it was trained on.
            logits, features, losses: as for `observe`.
        """
        settings = self.settings
        self.replays.index_add_(0, replay.ids, torch.ones_like(replay.ids))
        if not settings.rescore or settings.selection not in DIFFICULTY_SELECTIONS:
            return
        by_loss = settings.selection == "loss"
        scores = None if by_loss else self._score(logits, features, replay.labels, update=False)
        values = losses.cpu() if scores is None else scores[:, TERMS.index(settings.selection)]
        self.bank.rescore(replay.ids, values)
        if self.score_history.ready:
            self.bank.graduate(self.score_history.quantile(0.5))

    def _features(self, logits: Tensor, features: Tensor | None) -> Tensor:
        if features is not None:
            return features
        return logits if self.settings.score_mode == "paper" else centred(logits)

    def _score(self, logits: Tensor, features: Tensor | None, labels: Tensor, *, update: bool) -> Tensor:
        self.term_statistics.frozen = not update
        settings = self.settings
        return difficulty_scores(
            logits,
            labels,
            self.prototypes,
            features=features,
            mode=settings.score_mode,
            reduce=settings.score_reduce,
            eps=settings.score_eps,
            statistics=self.term_statistics if settings.score_mode == "zscore" else None,
            all_reduce=self.group.sum,
            voxels=False,
        ).samples.cpu()

    def _admit(self, iteration: int, batch: Batch, chosen: Selected) -> None:
        admitted = chosen.admitted
        labels = batch.labels[admitted.to(batch.labels.device)]
        if self.settings.store == "patch":
            payload = {"images": batch.images[admitted.to(batch.images.device)], "labels": labels}
        else:
            payload = {"references": batch.references[admitted]}
        self.bank.admit(
            batch.ids[admitted],
            payload,
            scores=chosen.ranking[admitted],
            classes=self._main_class(labels),
            iteration=iteration,
        )

    def _main_class(self, labels: Tensor) -> Tensor:
        """The most frequent foreground class of each sample, 0 where it has none."""
        flat = labels.flatten(1)
        counts = torch.stack([(flat == c).sum(1) for c in range(1, self.prototypes.num_classes)], dim=1)
        best = counts.argmax(1) + 1
        return torch.where(counts.sum(1) > 0, best, 0).cpu()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as tensors and plain types."""
        return {
            "prototypes": self.prototypes.state_dict(),
            "term_statistics": self.term_statistics.state_dict(),
            "history": self.history.state_dict(),
            "hard_count": self.hard_count.state_dict(),
            "score_history": self.score_history.state_dict(),
            "generator": self.generator.get_state(),
            "bank": self.bank.state_dict(),
            "last_score": self.last_score,
            "replays": self.replays,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name in ("prototypes", "term_statistics", "history", "hard_count", "score_history", "bank"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.last_score, self.replays = state["last_score"].clone(), state["replays"].clone()
