"""Looks at the training cases while a run learns: that they cost what they may, change nothing, and survive a stop."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch
from synthetic import write_cases
from training_cases import Listener, assert_same, resume, train

from ForgettableSegLib.cases.case import CaseList
from ForgettableSegLib.errors import Cancelled
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.dynamics import LearningDynamics
from ForgettableSegLib.training.settings import TrainingSettings
from ForgettableSegLib.training.tables import DYNAMICS_FILE, MAPS_FOLDER

# All cases at every look: what is looked at then does not depend on the machine's speed.
ALL = {"dynamics_share": 1, "dynamics_every": 1, "forgetting_maps": True, "iterations": 16, "validate_every": 8}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> CaseList:
    """Six small cases on disk."""
    return write_cases(tmp_path_factory.mktemp("cases"), 6, shape=(6, 24, 20))


def test_a_stopped_run_goes_on_with_the_same_dynamics_and_looks_change_nothing(cases: CaseList, tmp_path: Path) -> None:
    whole = train(cases, tmp_path / "whole", settings=ALL)
    without = train(cases, tmp_path / "without", settings={**ALL, "dynamics": False})
    assert_same(whole, without)
    assert not (tmp_path / "without" / DYNAMICS_FILE).exists()
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "stopped", Listener(stop_at=9), settings=ALL)
    assert_same(whole, resume(tmp_path / "stopped"))
    tables = [(tmp_path / name / DYNAMICS_FILE).read_text(encoding="utf-8") for name in ("whole", "stopped")]
    assert tables[0] == tables[1]
    rows = list(csv.DictReader(tables[0].splitlines()))
    assert {row["case"] for row in rows} == set(whole.config.split.train)
    assert {row["class"] for row in rows} == {"background", "bright ball", "dark ball"}
    assert len({row["looks"] for row in rows}) == 1
    assert int(rows[0]["looks"]) >= 4
    for case in whole.config.split.train:
        source = sitk.ReadImage(str(whole.config.select([case])[0].label))
        counted = sitk.ReadImage(str(tmp_path / "stopped" / MAPS_FOLDER / f"{case}_forgetting.nrrd"))
        assert counted.GetSize() == source.GetSize()
        assert counted.GetOrigin() == pytest.approx(source.GetOrigin())
        other = sitk.ReadImage(str(tmp_path / "whole" / MAPS_FOLDER / f"{case}_forgetting.nrrd"))
        assert (sitk.GetArrayFromImage(counted) == sitk.GetArrayFromImage(other)).all()


class Slow(LearningDynamics):
    """A case takes one second by a clock of its own."""

    def _look_at(self, network: torch.nn.Module, numbers: list[int]) -> None:
        self.seconds += len(numbers)
        self.seen = [*getattr(self, "seen", []), *numbers]
        self._cases_seen += len(numbers)
        self._of_this_look += len(numbers)


class Case:
    """A case with an image, which nobody reads."""

    is_label_map = False


def test_looks_take_their_share_of_the_time_and_cases_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings(dynamics_share=0.1)
    dynamics = Slow([Case()] * 7, settings, epoch=5, patch_size=(8, 8), device="cpu", group=ProcessGroup())
    monkeypatch.setattr("ForgettableSegLib.training.dynamics.time.monotonic", lambda: 0.0)
    assert not dynamics.due(0, 0.0)
    for turn in range(1, 21):
        assert dynamics.due(turn, turn / 20)
        dynamics.look(torch.nn.Identity(), elapsed_s=10.0 * turn, on_case=lambda done, of: None)
        assert not dynamics.due(turn, turn / 20)
        assert dynamics.seconds <= 0.1 * 10.0 * turn
    assert len(dynamics.seen) == 20
    counts = [dynamics.seen.count(number) for number in range(7)]
    assert max(counts) - min(counts) <= 1
    assert "10.0 % of the training" in dynamics.summary(200.0)


def test_a_look_never_sees_a_case_twice_however_much_time_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings(dynamics_every=2)
    dynamics = Slow([Case()] * 3, settings, epoch=5, patch_size=(8, 8), device="cpu", group=ProcessGroup())
    monkeypatch.setattr("ForgettableSegLib.training.dynamics.time.monotonic", lambda: 0.0)
    assert [n for n in range(25) if dynamics.due(n, 0.5)][:1] == [10]
    assert dynamics.look(torch.nn.Identity(), elapsed_s=1e6, on_case=lambda done, of: None) == 3
    assert sorted(dynamics.seen) == [0, 1, 2]
