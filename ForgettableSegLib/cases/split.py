"""Splitting cases into training, validation and test parts by group (METHOD A.6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Case ids of the three parts, each sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def to_dict(self) -> dict[str, list[str]]:
        """Content for JSON."""
        return {part: list(getattr(self, part)) for part in _PARTS}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Split:
        """The split that `to_dict` stored.

        Raises:
            ForgettableSegError: `CASE_LIST_INVALID` if a part is missing or a case stands in two parts.
        """
        if set(content) != set(_PARTS):
            raise _invalid(f"A split needs the parts {', '.join(_PARTS)}, not {', '.join(sorted(content)) or 'none'}.")
        split = cls(**{part: tuple(content[part]) for part in _PARTS})
        _check_unique([*split.train, *split.validation, *split.test], "stands twice in the split")
        return split


def split_cases(cases: Iterable[Case], *, ratios: Sequence[float] = (4, 1, 1), seed: int = 0) -> Split:
    """Split cases so that no group is in two parts, by largest remainder over the groups.

    The order of groups comes from a hash of seed and name, so it depends neither on the order of the cases nor on the
    version of a random generator. With few groups validation and test may be empty (two groups both train).

    Args:
        cases: the cases; their ids must be unique.
        ratios: relative sizes of training, validation and test.
        seed: another seed gives another split.

    Raises:
        ForgettableSegError: `CASE_LIST_INVALID` for no cases or repeated ids, `SETTING_INVALID` for bad ratios.
    """
    cases = list(cases)
    if not cases:
        raise _invalid("There are no cases to split.")
    _check_unique([case.case_id for case in cases], "stands twice in the list of cases; give each case its own id")
    groups = _ordered_groups(cases, seed)
    sizes = _largest_remainder(len(groups), ratios)
    part_of: dict[str, str] = {}
    for part, size in zip(_PARTS, sizes, strict=True):
        start = len(part_of)
        part_of.update({group: part for group in groups[start : start + size]})
    return Split(**{part: tuple(sorted(c.case_id for c in cases if part_of[c.group] == part)) for part in _PARTS})


def fold_splits(cases: Iterable[Case], folds: int, *, ratios: Sequence[float], seed: int = 0) -> list[Split]:
    """Splits for cross-validation: every case is held out by exactly one of them, together with its group.

    Args:
        cases: the cases; their ids must be unique.
        folds: how many, from 2 to the number of groups.
        ratios: how those that are not held out are shared by training and validation; the third number does not count.
        seed: another seed gives other folds.

    Raises:
        ForgettableSegError: `CASE_LIST_INVALID` for less groups than folds, and as `split_cases`.
    """
    cases = list(cases)
    _check_unique([case.case_id for case in cases], "stands twice in the list of cases; give each case its own id")
    groups = _ordered_groups(cases, seed)
    if not 2 <= folds <= len(groups):
        raise _invalid(f"{len(groups)} groups of labelled cases cannot be parted into {folds} folds, from 2 on.")
    splits = []
    for number in range(folds):
        held_out = set(groups[number::folds])
        kept = split_cases([c for c in cases if c.group not in held_out], ratios=(*ratios[:2], 0), seed=seed)
        splits.append(replace(kept, test=tuple(sorted(c.case_id for c in cases if c.group in held_out))))
    return splits


def _ordered_groups(cases: Sequence[Case], seed: int) -> list[str]:
    return sorted({case.group for case in cases}, key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).digest())


def _largest_remainder(total: int, ratios: Sequence[float]) -> list[int]:
    """Whole shares of `total`; earlier parts win ties. Fractions, because 0.1 + 0.2 must not decide a tie."""
    shares = [Fraction(str(ratio)) for ratio in ratios]
    if len(shares) != len(_PARTS) or min(shares) < 0 or shares[0] <= 0:
        raise ForgettableSegError(
            ErrorCode.SETTING_INVALID,
            f"split_ratios must be three numbers, none negative and the first above zero, not {list(ratios)}.",
        )
    exact = [total * share / sum(shares) for share in shares]
    sizes = [int(one) for one in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda part: (sizes[part] - exact[part], part))
    for part in by_remainder[: total - sum(sizes)]:
        sizes[part] += 1
    return sizes


def _check_unique(ids: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for case_id in ids:
        if case_id in seen:
            raise _invalid(f"Case '{case_id}' {what}.")
        seen.add(case_id)


def _invalid(message: str) -> ForgettableSegError:
    return ForgettableSegError(ErrorCode.CASE_LIST_INVALID, message)
