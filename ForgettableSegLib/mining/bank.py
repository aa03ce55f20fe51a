"""The forgettable sample bank: hard samples kept for replay (Eq. 13 and 14)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

Replacement = Literal["random", "fifo", "score"]
Store = Literal["reference", "patch"]

_PAYLOAD = {"reference": {"references": torch.int64}, "patch": {"images": torch.float16, "labels": torch.uint8}}


class Replay(NamedTuple):
    """Samples drawn from the bank.

    Args:
        ids: int64 ``[n]``.
        payload: what was stored: ``{"references": int64 [n, K]}``, or ``{"images": float16 [n, C, *S],
            "labels": uint8 [n, *S]}``.
    """

    ids: Tensor
    payload: dict[str, Tensor]


class SampleBank:
    """M of the paper: at most ``capacity`` samples (P times B), each at most once.

    Samples are stored by reference (rows of integers that say where to cut them out again, so that a replay is
    augmented afresh and no image is kept), or as the patches themselves. Everything lies on the CPU; random choices
    come from the bank's own generator, so that its state is complete.

    Args:
        capacity: P * B, at least 1.
        replacement: who leaves a full bank: a random entry (the paper), the oldest, or the one with the lowest score.
        store: what is kept of a sample.
        seed: of the generator (each rank its own).
        max_age: iterations that an entry stays; None for no limit.
        max_replays: replays after which an entry leaves; None for no limit.

    Raises:
        ValueError: for an unknown replacement or store, or a capacity below 1.
    """

    def __init__(
        self,
        capacity: int,
        *,
        replacement: Replacement = "random",
        store: Store = "reference",
        seed: int = 0,
        max_age: int | None = None,
        max_replays: int | None = None,
    ) -> None:
        if replacement not in get_args(Replacement) or store not in get_args(Store) or capacity < 1:
            msg = f"no bank with capacity {capacity!r}, replacement {replacement!r} and store {store!r}"
            raise ValueError(msg)
        self.capacity = capacity
        self.replacement = replacement
        self.store = store
        self.max_age = max_age
        self.max_replays = max_replays
        self.generator = torch.Generator().manual_seed(seed)
        self.quarantined = torch.zeros(0, dtype=torch.int64)
        self._size = 0
        self._next_sequence = 0
        # Entry i is row i of every column; rows from _size on are free.
        self._columns: dict[str, Tensor] = {
            name: torch.zeros(capacity, dtype=torch.int64)
            for name in ("ids", "classes", "admitted", "replays", "sequence")
        }
        self._columns["scores"] = torch.zeros(capacity)

    def __len__(self) -> int:
        return self._size

    @property
    def ids(self) -> Tensor:
        """Ids of the entries, int64 ``[len]``."""
        return self._column("ids").clone()

    @property
    def scores(self) -> Tensor:
        """Scores of the entries, float32 ``[len]``."""
        return self._column("scores").clone()

    def may_enter(self, ids: Tensor) -> Tensor:
        """Which samples are neither in the bank nor quarantined, ``[n]`` bool."""
        ids = ids.cpu()
        return ~(torch.isin(ids, self._column("ids")) | torch.isin(ids, self.quarantined))

    def admit(
        self,
        ids: Tensor,
        payload: dict[str, Tensor],
        *,
        scores: Tensor,
        classes: Tensor | None = None,
        iteration: int,
    ) -> int:
        """M <- (M minus as many of its entries as there is no room for) and the new samples (Eq. 13).

        A sample that is in the bank already only gets its new score; quarantined samples, repeated ids and scores
        that are not finite are passed over. Of more samples than the bank holds the highest scores enter.

        Args:
            ids: int64 ``[n]``.
            payload: as in `Replay`; images and labels are converted to float16 and uint8.
            scores: ``[n]``.
            classes: the class that each sample stands for (for display), int64 ``[n]``; 0 if None.
            iteration: now.

        Returns:
            Number of new entries.

        Raises:
            ValueError: if the payload is not what this bank stores, or has another shape than before.
        """
        ids, scores = ids.detach().cpu(), scores.detach().float().cpu()
        self._expire(iteration)
        self.rescore(ids, scores)
        enters = self.may_enter(ids) & scores.isfinite() & ~_repeated(ids)
        chosen = enters.nonzero().squeeze(1)
        if len(chosen) > self.capacity:
            chosen = chosen[scores[chosen].sort(descending=True, stable=True).indices[: self.capacity]]
        new = {
            "ids": ids,
            "scores": scores,
            "classes": torch.zeros_like(ids) if classes is None else classes.cpu(),
            "admitted": torch.full_like(ids, iteration),
            "replays": torch.zeros_like(ids),
            **self._checked(payload, len(ids)),
        }
        rows = self._make_room(len(chosen))
        for name, values in new.items():
            self._columns[name][rows] = values[chosen]
        self._columns["sequence"][rows] = self._next_sequence + torch.arange(len(chosen))
        self._next_sequence += len(chosen)
        return len(chosen)

    def sample(self, n: int, *, iteration: int, allow_partial: bool = False) -> Replay | None:
        """RS(M, B) of Eq. 14: n entries at random without replacement, each counted as replayed.

        Args:
            n: number of entries.
            iteration: now.
            allow_partial: whether a bank with fewer than n entries gives all it has.

        Returns:
            Replay, or None where the bank holds too few.
        """
        self._expire(iteration)
        if self._size == 0 or (self._size < n and not allow_partial):
            return None
        rows = torch.randperm(self._size, generator=self.generator)[:n]
        self._columns["replays"][rows] += 1
        payload = {name: self._columns[name][rows] for name in _PAYLOAD[self.store]}
        return Replay(self._columns["ids"][rows], payload)

    def rescore(self, ids: Tensor, scores: Tensor) -> None:
        """Replace the scores of the entries with these ids (``[n]`` each); ids that are not in the bank are ignored."""
        ids, scores = ids.detach().cpu(), scores.detach().float().cpu()
        ids, scores = ids[scores.isfinite()], scores[scores.isfinite()]
        match = self._column("ids").unsqueeze(1) == ids.unsqueeze(0)
        rows, places = match.nonzero(as_tuple=True)
        # Rows come in order, and of an id given twice the last score counts.
        last = torch.ones_like(rows, dtype=torch.bool)
        last[:-1] = rows[1:] != rows[:-1]
        self._columns["scores"][rows[last]] = scores[places[last]]

    def graduate(self, threshold: float) -> int:
        """Let entries go that were replayed at least once and now score below the threshold (the running median).

        Only for selections that rank by difficulty; returns how many left.
        """
        return self._remove((self._column("replays") > 0) & (self._column("scores") < threshold))

    def quarantine(self, ids: Tensor) -> int:
        """Keep these samples out from now on (confirmed label errors); returns how many left the bank."""
        ids = ids.detach().cpu().to(torch.int64)
        self.quarantined = torch.cat([self.quarantined, ids]).unique()
        return self._remove(torch.isin(self._column("ids"), self.quarantined))

    def snapshot(self, iteration: int) -> list[dict[str, Any]]:
        """The entries in plain types, highest score first, for a gallery: no image, only where it is to be found."""
        order = self._column("scores").sort(descending=True, stable=True).indices.tolist()
        references = self._columns.get("references")
        return [
            {
                "id": int(self._columns["ids"][row]),
                "score": float(self._columns["scores"][row]),
                "class": int(self._columns["classes"][row]),
                "age": iteration - int(self._columns["admitted"][row]),
                "replays": int(self._columns["replays"][row]),
                "reference": [] if references is None else references[row].tolist(),
            }
            for row in order
        ]

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and plain types (``torch.load(weights_only=True)`` reads it back)."""
        return {
            "capacity": self.capacity,
            "store": self.store,
            "next_sequence": self._next_sequence,
            "quarantined": self.quarantined.clone(),
            "generator": self.generator.get_state(),
            "columns": {name: column[: self._size].clone() for name, column in self._columns.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, bit for bit.

        Raises:
            ValueError: if it was written by a bank of another capacity or store.
        """
        if (state["capacity"], state["store"]) != (self.capacity, self.store):
            msg = (
                f"the stored bank holds {state['capacity']} samples by {state['store']}, "
                f"not {self.capacity} by {self.store}"
            )
            raise ValueError(msg)
        self._size = len(state["columns"]["ids"])
        self._next_sequence = int(state["next_sequence"])
        self.quarantined = state["quarantined"].clone()
        self.generator.set_state(state["generator"].cpu())
        self._columns = {}
        for name, stored in state["columns"].items():
            self._columns[name] = torch.zeros(self.capacity, *stored.shape[1:], dtype=stored.dtype)
            self._columns[name][: self._size] = stored.cpu()

    def _column(self, name: str) -> Tensor:
        return self._columns[name][: self._size]

    def _checked(self, payload: dict[str, Tensor], n: int) -> dict[str, Tensor]:
        """The payload in the types that are stored; makes its columns at the first admission."""
        types = _PAYLOAD[self.store]
        if set(payload) != set(types) or any(len(values) != n for values in payload.values()):
            msg = f"a bank by {self.store} needs {n} rows each of {', '.join(types)}"
            raise ValueError(msg)
        converted = {name: values.detach().cpu().to(types[name]) for name, values in payload.items()}
        for name, values in converted.items():
            column = self._columns.setdefault(name, torch.zeros(self.capacity, *values.shape[1:], dtype=values.dtype))
            if column.shape[1:] != values.shape[1:]:
                msg = f"{name} of shape {tuple(values.shape[1:])} do not fit a bank of {tuple(column.shape[1:])}"
                raise ValueError(msg)
        return converted

    def _make_room(self, n: int) -> Tensor:
        """Rows for n new entries: free ones first, then those of entries that the replacement rule gives up."""
        free = min(n, self.capacity - self._size)
        appended = torch.arange(self._size, self._size + free)
        leaving = n - free
        if self.replacement == "random":
            replaced = torch.randperm(self._size, generator=self.generator)[:leaving] if leaving else appended[:0]
        else:
            key = self._column("sequence" if self.replacement == "fifo" else "scores")
            replaced = key.sort(stable=True).indices[:leaving]
        self._size += free
        return torch.cat([appended, replaced])

    def _expire(self, iteration: int) -> None:
        """Remove what is older or was replayed more often than the limits allow."""
        expired = torch.zeros(self._size, dtype=torch.bool)
        if self.max_age is not None:
            expired |= iteration - self._column("admitted") > self.max_age
        if self.max_replays is not None:
            expired |= self._column("replays") >= self.max_replays
        self._remove(expired)

    def _remove(self, leaving: Tensor) -> int:
        """Remove the rows marked in ``leaving [len]``, closing the gaps with rows from the end (patches are large)."""
        kept = self._size - int(leaving.sum())
        holes = leaving[:kept].nonzero().squeeze(1)
        movers = kept + (~leaving[kept:]).nonzero().squeeze(1)
        for column in self._columns.values():
            column[holes] = column[movers]
        removed, self._size = self._size - kept, kept
        return removed


def _repeated(ids: Tensor) -> Tensor:
    """Which ids occurred earlier in the same tensor, ``[n]`` bool."""
    return (ids.unsqueeze(0) == ids.unsqueeze(1)).tril(-1).any(1)
