"""Who writes the memories of the classes while training: the keys, the labels of positions, and how much is renewed."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from ForgettableSegLib.cases.labels import IGNORE_LABEL
from ForgettableSegLib.network.memory import ITEMS, ClassMemory, tokens
from ForgettableSegLib.training.distributed import ProcessGroup

MOMENTUM = 0.95
"""Share of their old weights that the keys keep."""
FOREGROUND_SHARE = 0.1
"""Of the labelled voxels of a position: as many make it one of the foreground, for a position holds many voxels."""

_POOLING = {2: functional.avg_pool2d, 3: functional.avg_pool3d}


def renewed_items(before: float | None, now: float) -> int:
    """K of W-LD: ``int(M (1/2 - (L_before - L_now) / 2))``, and M/2 where that is outside of [M/4, 3M/4].

    The less a step has gained, the more is renewed.

    Args:
        before, now: loss of the last iteration and of this one; None before the first.
    """
    half = ITEMS // 2
    if before is None:
        return half
    wanted = ITEMS * (0.5 - 0.5 * (before - now))
    return int(wanted) if ITEMS / 4 <= wanted <= 3 * ITEMS / 4 else half


def position_labels(labels: Tensor, num_classes: int, size: tuple[int, ...], block: int) -> Tensor:
    """The class of each position of the bottleneck, int64 (B, N); 255 where none of its voxels has a label.

    It is the most frequent foreground class of its voxels if foreground makes up a tenth of them, else background.

    Args:
        labels: (B, *S), 255 where there is no label.
        num_classes: C.
        size: of the bottleneck, an axis.
        block: voxels of an axis that make a position.
    """
    missing = [n * block - have for n, have in zip(size, labels.shape[1:], strict=True)]
    padded = functional.pad(labels.long(), [p for n in reversed(missing) for p in (0, n)], value=IGNORE_LABEL)
    valid = padded != IGNORE_LABEL
    one_hot = (functional.one_hot(padded * valid, num_classes).movedim(-1, 1) * valid.unsqueeze(1)).float()
    shares = _POOLING[len(size)](one_hot, block).flatten(2)
    total, foreground = shares.sum(1), shares[:, 1:].sum(1)
    classes = torch.where(foreground >= FOREGROUND_SHARE * total, shares[:, 1:].argmax(1) + 1, 0)
    return torch.where(total > 0, classes, IGNORE_LABEL)


class MemoryWriter:
    """Writes what a training batch shows into the memories, the same on all ranks.

    Args:
        memory: of the network that is trained.
        rule: how many items are renewed and which, "wld": K of W-LD, the least asked for; "lowest": M/2 of these;
            "random": M/2 of any, by any vectors.
        block: voxels of an axis that make a position of the bottleneck.
        seed: draws at "random".
        group: the processes of the run.
    """

    def __init__(self, memory: ClassMemory, *, rule: str, block: int, seed: int, group: ProcessGroup) -> None:
        self.memory = memory
        self.rule = rule
        self.block = block
        self.group = group
        self.key = copy.deepcopy(memory.phi).requires_grad_(False)
        self.generator = torch.Generator().manual_seed(seed)
        self.loss: float | None = None

    @torch.no_grad()
    def write(self, bottleneck: Tensor, labels: Tensor, loss: float) -> int:
        """Take the labelled positions of a batch in.

        Args:
            bottleneck: (B, f, *T), what the memory was read for.
            labels: (B, *S) of the batch.
            loss: of the batch on this rank.

        Returns:
            K, the number of items of each class that could be renewed.
        """
        for average, weight in zip(self.key.parameters(), self.memory.phi.parameters(), strict=True):
            average.lerp_(weight, 1 - MOMENTUM)
        now = float(self.group.sum(torch.tensor(loss))) / self.group.world_size
        number = renewed_items(self.loss, now) if self.rule == "wld" else ITEMS // 2
        self.loss = now
        num_classes = len(self.memory.items)
        classes = position_labels(labels, num_classes, tuple(bottleneck.shape[2:]), self.block)
        vectors = self.group.gathered(tokens(self.key(bottleneck)).flatten(0, 1))
        classes = self.group.gathered(classes.flatten())
        generator = self.generator if self.rule == "random" else None
        for label in range(num_classes):
            of_class = vectors[classes == label]
            if len(of_class):
                self.memory.write(label, of_class, number, generator=generator)
        return number

    def state_dict(self) -> dict[str, Any]:
        """The keys' weights, the last loss and the generator; the memories are the network's."""
        return {"key": self.key.state_dict(), "loss": self.loss, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.key.load_state_dict(state["key"])
        self.loss = state["loss"]
        self.generator.set_state(state["generator"])
