"""Splits: the sizes of METHOD A.6, whole groups, independent of order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.split import Split, fold_splits, split_cases
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError


def cases(count: int, per_group: int = 1) -> list[Case]:
    return [Case(f"c{n:03d}", f"g{n // per_group}", (Path("x.nii"),)) for n in range(count)]


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.validation), len(split.test)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (489, (326, 82, 81)),
        (369, (246, 62, 61)),
        (100, (67, 17, 16)),
        (361, (241, 60, 60)),
        (50, (34, 8, 8)),
        (260, (174, 43, 43)),
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),
        (3, (2, 1, 0)),
        (6, (4, 1, 1)),
    ],
)
def test_sizes_of_the_papers_data_sets(count: int, expected: tuple[int, int, int]):
    assert sizes(split_cases(cases(count))) == expected


@given(st.integers(1, 80), st.integers(1, 4), st.integers(0, 5))
def test_every_case_is_in_one_part_and_groups_stay_whole(count: int, per_group: int, seed: int):
    some = cases(count, per_group)
    split = split_cases(some, seed=seed)
    parts = [set(split.train), set(split.validation), set(split.test)]
    assert sorted(split.train + split.validation + split.test) == sorted(case.case_id for case in some)
    group_of = {case.case_id: case.group for case in some}
    groups = [{group_of[one] for one in part} for part in parts]
    assert sum(len(part) for part in groups) == len(set(group_of.values()))


def test_split_depends_on_the_seed_and_not_on_the_order():
    some = cases(30)
    assert split_cases(some, seed=1) == split_cases(some[::-1], seed=1)
    assert split_cases(some, seed=1) != split_cases(some, seed=2)


def test_split_is_the_same_on_every_machine():
    assert split_cases(cases(6), seed=0).to_dict() == {
        "train": ["c000", "c001", "c002", "c004"],
        "validation": ["c005"],
        "test": ["c003"],
    }


def test_ratios():
    assert sizes(split_cases(cases(10), ratios=(1, 0, 0))) == (10, 0, 0)
    assert sizes(split_cases(cases(10), ratios=(0.5, 0.2, 0.3))) == (5, 2, 3)


def test_json_round_trip():
    split = split_cases(cases(20))
    assert Split.from_dict(json.loads(json.dumps(split.to_dict()))) == split


@pytest.mark.parametrize("ratios", [(4, 1), (0, 1, 1), (4, -1, 1)])
def test_bad_ratios(ratios: tuple):
    with pytest.raises(ForgettableSegError) as caught:
        split_cases(cases(4), ratios=ratios)
    assert caught.value.code is ErrorCode.SETTING_INVALID


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"train": []}, "needs the parts"),
        ({"train": ["a"], "validation": ["a"], "test": []}, "'a' stands twice"),
    ],
)
def test_bad_stored_split(content: dict, words: str):
    with pytest.raises(ForgettableSegError, match=words):
        Split.from_dict(content)


def test_repeated_ids_and_no_cases():
    with pytest.raises(ForgettableSegError, match="'c000' stands twice"):
        split_cases([*cases(3), *cases(1)])
    with pytest.raises(ForgettableSegError, match="no cases"):
        split_cases([])


@given(st.integers(2, 12), st.integers(1, 3), st.integers(0, 3))
def test_every_case_is_held_out_by_one_fold_with_its_group(groups: int, per_group: int, seed: int) -> None:
    given_cases = cases(groups * per_group, per_group)
    folds = min(groups, 5)
    splits = fold_splits(given_cases, folds, ratios=(4, 1, 1), seed=seed)
    held_out = [case_id for split in splits for case_id in split.test]
    assert sorted(held_out) == [case.case_id for case in given_cases]
    group_of = {case.case_id: case.group for case in given_cases}
    for split in splits:
        assert sorted([*split.train, *split.validation, *split.test]) == sorted(held_out)
        parts = [{group_of[case_id] for case_id in part} for part in (split.train, split.validation, split.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == groups


@pytest.mark.parametrize("folds", [1, 4])
def test_folds_need_as_many_groups(folds: int) -> None:
    with pytest.raises(ForgettableSegError) as caught:
        fold_splits(cases(6, 2), folds, ratios=(4, 1, 1))
    assert caught.value.code == ErrorCode.CASE_LIST_INVALID
