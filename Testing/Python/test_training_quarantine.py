"""Quarantined labels enter neither the loss nor the bank, and the decisions that say so survive."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from synthetic import TASK, write_cases
from training_cases import Listener, resume, train

from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.cases.reviews import REVIEW_FILE, Decision, Reviews, label_key, review_path, told
from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.job import JobContext
from ForgettableSegLib.jobs.quarantine import without_quarantined
from ForgettableSegLib.jobs.requests import TrainRequest
from ForgettableSegLib.training.trainer import Trainer


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> CaseList:
    """Six small cases on disk."""
    return write_cases(tmp_path_factory.mktemp("cases"), 6, shape=(6, 24, 20))


class Watched(Trainer):
    """Remembers which labels its batches held, main and replayed."""

    seen: list[tuple[int, torch.Tensor]]

    def _prepared(self, batch: Any, iteration: int, *, replay: bool = False) -> Any:
        before = zip(batch.ids.tolist(), batch.labels, strict=True)
        type(self).seen += [(number, labels) for number, labels in before]
        type(self).last = self
        return super()._prepared(batch, iteration, replay=replay)


def test_quarantined_slices_are_never_drawn_nor_banked_also_after_a_stop(
    cases: CaseList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Watched.seen = []
    monkeypatch.setattr("ForgettableSegLib.training.run.Trainer", Watched)
    everything = [("k", n) for n in range(6)]
    settings = {"rho": 1.0, "foreground_oversampling": 0.5, "dynamics": False, "iterations": 16, "admission": "topk"}
    ids = [case.case_id for case in cases]
    left_out = {ids[0]: [("k", 2), ("k", 3)], ids[1]: everything, ids[2]: [("i", 0), ("i", 1)], "unknown": [("k", 0)]}
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "run", Listener(stop_at=8), settings=settings, quarantined=left_out)
    resume(tmp_path / "run")
    reader, bank = Watched.last.reader, Watched.last.miner.bank
    drawn = {reader.locate(number) for number, _ in Watched.seen}
    names = [case.case_id for case in reader.cases]
    assert len(Watched.seen) > 100
    assert len(bank) > 0
    for case_id, slices in ((ids[0], {2, 3}), (ids[1], set(range(6)))):
        if case_id in names:
            of_case = {index for case, index in drawn if names[case] == case_id}
            assert not of_case & slices
    assert {ids[0], ids[1], ids[2]} & set(names), "the split has none of these cases in its training part"
    assert not set(reader.quarantined_slices.tolist()) & {number for number, _ in Watched.seen}
    assert not set(reader.quarantined_slices.tolist()) & set(bank.ids.tolist())
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert config["quarantined"][ids[0]] == [["k", 2], ["k", 3]]


def test_labels_of_a_quarantined_slice_along_another_axis_are_hidden_in_every_patch(
    cases: CaseList, tmp_path: Path
) -> None:
    outcome = train(cases, tmp_path / "run", settings={"iterations": 1, "dynamics": False})
    from ForgettableSegLib.cases.cache import CaseCache
    from ForgettableSegLib.training.patches import PatchReader

    config = outcome.config
    (prepared,) = CaseCache(tmp_path / "cache").prepare(list(cases)[:1], TASK, config.preprocessing)
    native = sitk.GetArrayFromImage(sitk.ReadImage(str(next(iter(cases)).label)))
    columns = np.flatnonzero((native > 0).any((0, 1)))[:2].tolist()
    reader = PatchReader([prepared], (24, 20), quarantined={prepared.case_id: [("i", column) for column in columns]})
    references = torch.tensor([[0, index, 0, 0] for index in range(6)])
    labels = reader.read(references).labels.numpy()
    whole = PatchReader([prepared], (24, 20)).read(references).labels.numpy()
    hidden = labels == 255
    back = prepared.grid.to_native(hidden.astype(np.uint8)).astype(bool)
    assert back[:, :, columns].all()
    assert back.sum() == len(columns) * native.shape[0] * native.shape[1]
    assert (labels[~hidden] == whole[~hidden]).all()
    assert not any(back[tuple(place)] for place in _native(prepared, reader.foreground(0)))


def _native(prepared: Any, foreground: Any) -> np.ndarray:
    """Native indices z, y, x of voxels on the prepared grid."""
    voxels = np.concatenate(list(foreground.values()))
    return np.rint(prepared.grid.index_to_native(voxels)).astype(int)[:, ::-1]


def test_a_training_without_anything_left_says_so(cases: CaseList, tmp_path: Path) -> None:
    everything = {case.case_id: [("k", n) for n in range(6)] for case in cases}
    with pytest.raises(ForgettableSegError, match="All slices of the training cases are quarantined"):
        train(cases, tmp_path / "run", settings={"iterations": 1}, quarantined=everything)
    reviews = Reviews(tmp_path / REVIEW_FILE)
    for case in cases:
        reviews.decide(Decision(case.case_id, "quarantined"))
    request = TrainRequest(cases="unused", run="unused", reviews=str(reviews.write()))
    with pytest.raises(ForgettableSegError, match="All 6 cases are quarantined"):
        without_quarantined(cases, request, JobContext())


def test_decisions_survive_and_hide_what_was_decided(tmp_path: Path) -> None:
    label = tmp_path / "label.nrrd"
    label.write_bytes(b"one")
    reviews = Reviews(tmp_path / REVIEW_FILE)
    reviews.decide(Decision("a", "confirmed", "k", 3, label_key(label)))
    reviews.decide(Decision("a", "quarantined", "k", 4, label_key(label)))
    reviews.decide(Decision("b", "quarantined"))
    reviews.decide(Decision("a", "fixed", "k", 5, "x"))
    reviews.decide(Decision("a", "quarantined", "k", 5, "x"))
    reviews.asked["model"] = ["c"]
    again = Reviews(reviews.write())
    assert again.decisions == reviews.decisions
    assert again.asked == {"model": ["c"]}
    assert again.counts() == {"confirmed": 1, "fixed": 0, "quarantined": 3}
    assert again.quarantined_slices() == {"a": [("k", 4), ("k", 5)]}
    assert again.hides("a", "k", 3, label_key(label))
    assert again.hides("b", "i", 7, "")
    assert not again.hides("a", "k", 2, label_key(label))
    label.write_bytes(b"another")
    assert not again.hides("a", "k", 3, label_key(label))
    assert again.hides("a", "k", 4, label_key(label))
    again.forget("a", "k", 4)
    assert not again.hides("a", "k", 4, label_key(label))
    assert told(again, ["a", "b", "c"]).endswith("1 case (b) and 1 slice of 1 case.")
    assert told(again, ["c"]) == ""
    kept, slices = without_quarantined(
        write_cases(tmp_path / "cases", 2, shape=(4, 8, 8)),
        TrainRequest(cases=({},), run="unused", reviews=str(again.path)),
        JobContext(),
    )
    assert (len(kept), slices) == (2, {})


def test_decisions_are_found_beside_the_labels_of_every_data_set(tmp_path: Path) -> None:
    lists = [write_cases(tmp_path / name, 1, first_seed=seed, shape=(4, 8, 8)) for seed, name in enumerate("ab")]
    cases = [dataclasses.replace(next(iter(each)), case_id=name) for each, name in zip(lists, "ab", strict=True)]
    listed = dataclasses.replace(lists[0], cases=tuple(cases))
    for place, case, state in (("a", "a", "quarantined"), ("", "b", "quarantined"), ("b", "b", "confirmed")):
        reviews = Reviews(tmp_path / place / REVIEW_FILE)
        reviews.decide(Decision(case, state))
        reviews.write()
    request = TrainRequest(cases=({},), run="unused")
    kept, _ = without_quarantined(listed, request, JobContext())
    assert [case.case_id for case in kept] == ["b"], "the newer decision holds"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 2}', '{"schema": 1, "decisions": [{"case": "a"}]}', "[" * 100_000]
)
def test_a_damaged_file_of_decisions_is_named_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / REVIEW_FILE
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ForgettableSegError, match=REVIEW_FILE) as caught:
        Reviews(path)
    assert caught.value.code == ErrorCode.CASE_LIST_INVALID
    assert path.read_text(encoding="utf-8") == text


def test_the_file_lies_beside_the_cases(tmp_path: Path) -> None:
    labels = [tmp_path / "a" / "one.nrrd", tmp_path / "b" / "two.nrrd"]
    assert review_path(labels) == tmp_path / REVIEW_FILE
    assert review_path(labels[:1]) == tmp_path / "a" / REVIEW_FILE
    assert review_path(()).name == REVIEW_FILE
    with pytest.raises(ForgettableSegError, match="is no decision"):
        Reviews(tmp_path / "none.json").decide(Decision("a", "deleted"))
