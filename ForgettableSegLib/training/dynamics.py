"""Looks at the training cases while a network learns: what it learns, forgets and never learns.

A look runs the network over whole cases without augmentation, draws nothing at random and changes nothing that is
trained, so a run with looks learns the same as one without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ForgettableSegLib.cases.cache import PreparedCase
from ForgettableSegLib.mining.dynamics import CaseDynamics, Outcomes, samples_of, slice_outcomes
from ForgettableSegLib.network.forward import iterate_logits
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.settings import TrainingSettings

LOOKS_A_RUN = 20


class LearningDynamics:
    """The dynamics of all training cases of a run, and when to look at them.

    Args:
        cases: the training cases; those that are label maps alone have no image to look at.
        settings: of the run: `dynamics`, `dynamics_every`, `dynamics_share`, `forgetting_maps`, and the seed of the
            order in which cases take turns.
        epoch: iterations an epoch.
        patch_size, device, group: see `Trainer`.

    Attributes:
        by_case: the dynamics of each case that was looked at, by its number.
        looks: looks so far.
        seconds: that they took.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        settings: TrainingSettings,
        *,
        epoch: int,
        patch_size: Sequence[int],
        device: torch.device,
        group: ProcessGroup,
    ) -> None:
        self.cases = cases
        self.settings = settings
        self.epoch = epoch
        self.patch_size = tuple(patch_size)
        self.device = device
        self.group = group
        seen = torch.tensor([n for n, case in enumerate(cases) if not case.is_label_map], dtype=torch.int64)
        self._turns = seen[torch.randperm(len(seen), generator=torch.Generator().manual_seed(settings.seed))].tolist()
        self.by_case: dict[int, CaseDynamics] = {}
        self.looks = 0
        self.seconds = 0.0
        self._cases_seen = 0  # of all looks together; whose turn is next follows from it
        self._of_this_look = 0

    def due(self, iteration: int, done: float) -> bool:
        """Whether there is a look to make.

        Args:
            iteration: iterations done.
            done: share of the training that is over.
        """
        if not (self.settings.dynamics and self._turns and iteration):
            return False
        every = self.settings.dynamics_every
        wanted = int(done * LOOKS_A_RUN) if every is None else iteration // (every * self.epoch)
        return wanted > self.looks

    def look(self, network: nn.Module, *, elapsed_s: float, on_case: Callable[[int, int], None]) -> int:
        """Run the network over as many cases as the share of the time allows, those whose turn it is.

        Args:
            network: to look with; left as it is.
            elapsed_s: seconds that the training has taken.
            on_case: called before each case with the number of cases done and to do; may raise to stop, and the rest
                is looked at when the look is made again.

        Returns:
            Number of cases looked at.
        """
        while count := self._affordable(elapsed_s):
            for _ in range(count):
                on_case(self._of_this_look, self._of_this_look + count)
                begun = time.monotonic()
                self._look_at(network, self._next_cases())
                self.seconds += self.group.largest(time.monotonic() - begun)
        number, self._of_this_look = self._of_this_look, 0
        self.looks += 1
        return number

    def _affordable(self, elapsed_s: float) -> int:
        """How many more rounds of a case a rank there are in this look; the first one measures what it takes."""
        left = len(self._turns) - self._of_this_look
        rounds = -(-left // self.group.world_size)
        if self.settings.dynamics_share >= 1 or not self._cases_seen:
            return rounds if self.settings.dynamics_share >= 1 else min(1, rounds)
        allowance = self.group.smallest(self.settings.dynamics_share * elapsed_s) - self.seconds
        a_round = self.seconds / self._cases_seen * self.group.world_size
        return min(rounds, max(0, int(allowance / max(a_round, 1e-9))))

    def _next_cases(self) -> list[int]:
        """Numbers of the cases of the next round, one for each rank."""
        left = len(self._turns) - self._of_this_look
        first = self._cases_seen
        return [self._turns[(first + k) % len(self._turns)] for k in range(min(left, self.group.world_size))]

    def _look_at(self, network: nn.Module, numbers: Sequence[int]) -> None:
        """Each rank looks at one of the cases, and all of them take in what each has found."""
        known = [self._known(number) for number in numbers]
        sizes = [len(each.samples) for each in known]
        found = torch.zeros(sum(sizes), 5, dtype=torch.float64)
        rights = [None if own.voxels is None else torch.zeros_like(own.voxels) for own in known]
        if self.group.rank < len(numbers):
            case, own = self.cases[numbers[self.group.rank]], known[self.group.rank]
            first = sum(sizes[: self.group.rank])
            rows = found[first : first + len(own.samples)]
            self._compare(network, case, own.samples, rows, rights[self.group.rank])
            case.release()
        self.group.sum(found)
        for own, part, right in zip(known, found.split(sizes), rights, strict=True):
            dice, confidence, correct, wanted, share = part.unbind(1)
            everywhere = None if right is None else self.group.sum(right).bool()
            outcomes = Outcomes(dice.float(), confidence.float(), correct > 0.5, wanted.long(), share.float())
            own.update(outcomes, everywhere)
        self._cases_seen += len(numbers)
        self._of_this_look += len(numbers)

    def _known(self, number: int) -> CaseDynamics:
        if number not in self.by_case:
            label = self.cases[number].label
            shape = label.shape if self.settings.forgetting_maps else None
            self.by_case[number] = CaseDynamics(samples_of(label), shape=shape)
        return self.by_case[number]

    def _compare(
        self, network: nn.Module, case: PreparedCase, samples: Tensor, rows: Tensor, right: Tensor | None
    ) -> None:
        """Fill in the outcomes of the samples of a case ``[n, 5]``, and which voxels are right where these count."""
        slabs = iterate_logits(
            network,
            case.image,
            spatial_dims=self.settings.spatial_dims,
            patch_size=self.patch_size,
            device=self.device,
            mirrored=False,  # which would take several times as long
        )
        for where, logits in slabs:
            labels = torch.from_numpy(case.label[where].copy()).to(logits.device)
            inside = (samples[:, 0] >= where.start) & (samples[:, 0] < where.stop)
            found = slice_outcomes(logits, labels, samples[inside] - torch.tensor([where.start, 0]))
            values = (found.dice, found.confidence, found.correct, found.wanted, found.share)
            rows[inside] = torch.stack([each.double() for each in values], 1)
            if right is not None:
                right[where] = (logits.max(0).indices == labels).cpu()

    def summary(self, elapsed_s: float) -> str:
        """One sentence on what was looked at and what that took."""
        share = 100 * self.seconds / max(elapsed_s, 1e-9)
        times = self._cases_seen / max(1, len(self._turns))
        return (
            f"Learning dynamics: {self.looks} looks at {len(self.by_case)} of {len(self._turns)} training cases, "
            f"{times:.1f} for each of them, took {self.seconds:.1f} s, {share:.1f} % of the training."
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as tensors and plain types."""
        return {
            "by_case": {number: each.state_dict() for number, each in self.by_case.items()},
            "looks": self.looks,
            "seconds": self.seconds,
            "cases_seen": self._cases_seen,
            "of_this_look": self._of_this_look,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.by_case = {number: CaseDynamics.from_state(each) for number, each in state["by_case"].items()}
        self.looks, self.seconds = state["looks"], state["seconds"]
        self._cases_seen, self._of_this_look = state["cases_seen"], state["of_this_look"]
