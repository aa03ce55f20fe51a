"""The bank: its capacity, its replacement rules, the closed form of its replays, and its exact restoration."""

from __future__ import annotations

import io
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ForgettableSegLib.mining.bank import SampleBank


def admit(bank: SampleBank, ids: list[int], *, scores: list[float] | None = None, iteration: int = 0) -> int:
    """Admit samples whose payload tells their id, so that a mix-up shows."""
    tensor = torch.tensor(ids, dtype=torch.int64)
    if bank.store == "reference":
        payload = {"references": torch.stack([tensor, 2 * tensor, -tensor], dim=1)}
    else:
        images = (tensor.float() / 256).view(-1, 1, 1, 1).expand(-1, 2, 3, 3)
        payload = {"images": images, "labels": (tensor % 256).view(-1, 1, 1).expand(-1, 3, 3)}
    values = torch.rand(len(ids), generator=torch.Generator().manual_seed(iteration)) if scores is None else scores
    return bank.admit(tensor, payload, scores=torch.as_tensor(values), classes=tensor % 3, iteration=iteration)


def assert_payload_fits(ids: torch.Tensor, payload: dict[str, torch.Tensor]) -> None:
    if "references" in payload:
        assert torch.equal(payload["references"], torch.stack([ids, 2 * ids, -ids], dim=1))
    else:
        assert payload["images"].dtype == torch.float16
        assert payload["labels"].dtype == torch.uint8
        assert torch.equal(payload["images"].float(), (ids / 256).view(-1, 1, 1, 1).expand(-1, 2, 3, 3))
        assert torch.equal(payload["labels"].long(), (ids % 256).view(-1, 1, 1).expand(-1, 3, 3))


OPERATION = st.one_of(
    st.tuples(st.just("admit"), st.lists(st.integers(0, 40), min_size=0, max_size=12)),
    st.tuples(st.just("sample"), st.integers(1, 8)),
    st.tuples(st.just("graduate"), st.floats(0, 1)),
    st.tuples(st.just("quarantine"), st.lists(st.integers(0, 40), min_size=0, max_size=3)),
)


@settings(max_examples=80, deadline=None)
@given(
    operations=st.lists(OPERATION, max_size=25),
    capacity=st.integers(1, 9),
    replacement=st.sampled_from(["random", "fifo", "score"]),
    store=st.sampled_from(["reference", "patch"]),
    limits=st.tuples(st.none() | st.integers(1, 6), st.none() | st.integers(1, 3)),
)
def test_whatever_happens_the_bank_keeps_its_promises(
    operations: list, capacity: int, replacement: str, store: str, limits: tuple[int | None, int | None]
) -> None:
    max_age, max_replays = limits
    bank = SampleBank(capacity, replacement=replacement, store=store, max_age=max_age, max_replays=max_replays)
    quarantined: set[int] = set()
    for iteration, (name, argument) in enumerate(operations):
        if name == "admit":
            new = set(argument) - quarantined - set(bank.ids.tolist())
            admit(bank, argument, iteration=iteration)
            # What has expired makes room, and may come back in the same breath.
            assert len(set(argument) - quarantined) > capacity or new <= set(bank.ids.tolist())
        elif name == "sample":
            replay = bank.sample(argument, iteration=iteration, allow_partial=True)
            if replay is not None:
                assert len(set(replay.ids.tolist())) == len(replay.ids) == min(argument, len(bank))
                assert_payload_fits(replay.ids, replay.payload)
        elif name == "graduate":
            bank.graduate(argument)
        else:
            bank.quarantine(torch.tensor(argument, dtype=torch.int64))
            quarantined.update(argument)
        held = bank.ids.tolist()
        assert len(held) == len(set(held)) == len(bank) <= capacity
        assert not quarantined & set(held)
        if len(bank):
            everything = bank.sample(len(bank), iteration=iteration, allow_partial=True)
            if everything is not None:
                assert_payload_fits(everything.ids, everything.payload)


@pytest.mark.parametrize("capacity", [64, 160, 320])
def test_expected_replays_of_a_sample_are_one_over_rho_f_whatever_the_capacity(capacity: int) -> None:
    batch_size, period, hard = 32, 10, 3
    bank = SampleBank(capacity, seed=capacity)
    replays = torch.zeros(3 * 5_000, dtype=torch.int64)
    for iteration in range(5_000):
        admit(bank, list(range(hard * iteration, hard * iteration + hard)), iteration=iteration)
        if iteration % period == 0 and (replay := bank.sample(batch_size, iteration=iteration)) is not None:
            replays[replay.ids] += 1
    settled = replays[1500:-1500].float()
    assert float(settled.mean()) == pytest.approx(batch_size / (hard * period), rel=0.05)
    if capacity == 320:
        assert float((settled == 0).float().mean()) == pytest.approx(0.47, abs=0.03)


def test_a_full_bank_gives_up_as_many_old_entries_as_new_ones_come() -> None:
    bank = SampleBank(10)
    assert admit(bank, list(range(10))) == 10
    assert admit(bank, [20, 21, 22], iteration=1) == 3
    held = set(bank.ids.tolist())
    assert {20, 21, 22} <= held
    assert len(held) == 10
    assert len(held & set(range(10))) == 7


def test_random_replacement_strikes_every_entry_alike() -> None:
    survived = torch.zeros(10)
    for seed in range(600):
        bank = SampleBank(10, seed=seed)
        admit(bank, list(range(10)))
        admit(bank, [20, 21, 22, 23, 24], iteration=1)
        survived[bank.ids[bank.ids < 10]] += 1
    assert ((survived > 240) & (survived < 360)).all()


def test_fifo_gives_up_the_oldest_and_score_the_lowest() -> None:
    scores = [0.5, 0.1, 0.9, 0.2]
    fifo, by_score = SampleBank(4, replacement="fifo"), SampleBank(4, replacement="score")
    for bank in (fifo, by_score):
        admit(bank, [0, 1, 2, 3], scores=scores)
        admit(bank, [10, 11], scores=[0.6, 0.7], iteration=1)
    assert set(fifo.ids.tolist()) == {2, 3, 10, 11}
    assert set(by_score.ids.tolist()) == {0, 2, 10, 11}
    admit(fifo, [12, 13, 14], scores=[0.1, 0.1, 0.1], iteration=2)
    assert set(fifo.ids.tolist()) == {11, 12, 13, 14}


def test_a_sample_is_held_once_and_its_score_is_renewed() -> None:
    bank = SampleBank(5)
    admit(bank, [1, 2, 2], scores=[0.1, 0.2, 0.3])
    assert sorted(bank.ids.tolist()) == [1, 2]
    bank.sample(2, iteration=1)
    assert admit(bank, [2, 3], scores=[0.9, 0.4], iteration=2) == 1
    entries = {entry["id"]: entry for entry in bank.snapshot(5)}
    assert entries[2]["score"] == pytest.approx(0.9)
    assert (entries[2]["age"], entries[2]["replays"]) == (5, 1)
    assert (entries[3]["age"], entries[3]["replays"]) == (3, 0)


def test_of_more_samples_than_fit_the_hardest_enter() -> None:
    bank = SampleBank(3)
    assert admit(bank, [0, 1, 2, 3, 4], scores=[0.5, 0.1, 0.4, 0.3, 0.2]) == 3
    assert set(bank.ids.tolist()) == {0, 2, 3}


def test_scores_that_are_not_finite_stay_out() -> None:
    bank = SampleBank(3)
    assert admit(bank, [0, 1, 2], scores=[float("nan"), float("inf"), 1.0]) == 1
    bank.rescore(torch.tensor([2]), torch.tensor([float("nan")]))
    assert bank.scores.tolist() == [1.0]


def test_too_short_a_bank_gives_nothing_unless_a_part_will_do() -> None:
    bank = SampleBank(8)
    assert bank.sample(1, iteration=0, allow_partial=True) is None
    admit(bank, [1, 2, 3])
    assert bank.sample(4, iteration=0) is None
    assert len(bank.sample(4, iteration=0, allow_partial=True).ids) == 3


def test_rescoring_reaches_the_entries_by_id_and_the_last_of_a_repeated_id_counts() -> None:
    bank = SampleBank(4)
    admit(bank, [5, 6, 7], scores=[0.1, 0.2, 0.3])
    bank.rescore(torch.tensor([7, 99, 5, 7]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert dict(zip(bank.ids.tolist(), bank.scores.tolist(), strict=True)) == pytest.approx({5: 3.0, 6: 0.2, 7: 4.0})


def test_only_replayed_entries_graduate() -> None:
    bank = SampleBank(4)
    admit(bank, [0, 1], scores=[0.1, 0.9])
    assert bank.graduate(0.5) == 0
    bank.sample(2, iteration=1)
    admit(bank, [2], scores=[0.1], iteration=1)
    assert bank.graduate(0.5) == 1
    assert set(bank.ids.tolist()) == {1, 2}


def test_entries_leave_by_age_and_by_replays() -> None:
    old, tired = SampleBank(4, max_age=3), SampleBank(4, max_replays=2)
    admit(old, [0, 1], iteration=0)
    admit(old, [2], iteration=2)
    assert old.sample(3, iteration=3) is not None
    assert old.sample(3, iteration=4) is None
    assert old.ids.tolist() == [2]
    admit(tired, [0, 1])
    assert tired.sample(2, iteration=1) is not None
    assert tired.sample(2, iteration=2) is not None
    assert tired.sample(1, iteration=3, allow_partial=True) is None
    assert len(tired) == 0


def test_quarantined_samples_leave_and_never_return() -> None:
    bank = SampleBank(4)
    admit(bank, [0, 1, 2])
    assert bank.quarantine(torch.tensor([1, 30])) == 1
    assert admit(bank, [1, 30, 3], iteration=1) == 1
    assert set(bank.ids.tolist()) == {0, 2, 3}
    assert bank.may_enter(torch.tensor([0, 1, 4, 30])).tolist() == [False, False, True, False]


@pytest.mark.parametrize("store", ["reference", "patch"])
@pytest.mark.parametrize("replacement", ["random", "fifo", "score"])
def test_a_restored_bank_goes_on_bit_for_bit(store: str, replacement: str) -> None:
    first = SampleBank(6, replacement=replacement, store=store, seed=4)
    for iteration in range(5):
        admit(first, [3 * iteration, 3 * iteration + 1, 3 * iteration + 2], iteration=iteration)
        first.sample(2, iteration=iteration)
    first.quarantine(torch.tensor([4]))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = SampleBank(6, replacement=replacement, store=store, seed=99)
    second.load_state_dict(torch.load(file, weights_only=True))
    for iteration in range(5, 12):
        for bank in (first, second):
            admit(bank, [3 * iteration, 3 * iteration + 1, 4], iteration=iteration)
        replays = [bank.sample(4, iteration=iteration) for bank in (first, second)]
        assert torch.equal(replays[0].ids, replays[1].ids)
        for name, values in replays[0].payload.items():
            assert torch.equal(values, replays[1].payload[name])
        assert first.snapshot(iteration) == second.snapshot(iteration)
    assert torch.equal(first.generator.get_state(), second.generator.get_state())


def test_an_empty_bank_is_restored_and_one_of_another_size_is_refused() -> None:
    bank = SampleBank(6)
    bank.load_state_dict(SampleBank(6).state_dict())
    assert admit(bank, [1, 2]) == 2
    for other in (SampleBank(7), SampleBank(6, store="patch")):
        with pytest.raises(ValueError, match="the stored bank holds 6 samples by reference"):
            other.load_state_dict(bank.state_dict())


def test_the_snapshot_is_plain_sorted_and_holds_no_image() -> None:
    bank = SampleBank(5, store="patch")
    admit(bank, [1, 2, 3], scores=[0.2, 0.9, 0.5])
    entries = json.loads(json.dumps(bank.snapshot(7)))
    assert [entry["id"] for entry in entries] == [2, 3, 1]
    assert entries[0] == {"id": 2, "score": pytest.approx(0.9), "class": 2, "age": 7, "replays": 0, "reference": []}
    by_reference = SampleBank(5)
    admit(by_reference, [4])
    assert by_reference.snapshot(0)[0]["reference"] == [4, 8, -4]


def test_a_payload_of_another_kind_or_shape_is_refused_and_changes_nothing() -> None:
    bank = SampleBank(5)
    admit(bank, [1])
    wrong = [
        {"images": torch.zeros(1, 1, 2, 2)},
        {"references": torch.zeros(2, 3, dtype=torch.int64)},
        {"references": torch.zeros(1, 4, dtype=torch.int64)},
    ]
    for payload in wrong:
        with pytest.raises(ValueError, match="bank"):
            bank.admit(torch.tensor([2]), payload, scores=torch.tensor([1.0]), iteration=1)
    assert bank.ids.tolist() == [1]
    assert bank.sample(1, iteration=1).payload["references"].tolist() == [[1, 2, -1]]


def test_impossible_banks_are_refused() -> None:
    for arguments in ({"capacity": 0}, {"capacity": 3, "replacement": "best"}, {"capacity": 3, "store": "disk"}):
        with pytest.raises(ValueError, match="no bank with"):
            SampleBank(**arguments)
