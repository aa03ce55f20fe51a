"""Checkpoints: whole or not there, the last two kept, damage noticed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.training import checkpoint
from ForgettableSegLib.training.checkpoint import CheckpointFolder


def _state(iteration: int) -> dict:
    return {"iteration": iteration, "weights": torch.full((50,), float(iteration)), "list": [1, "two", None]}


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.load(pytest.fail) is None
    for iteration in (5, 10, 15):
        folder.save(_state(iteration), iteration)
    assert folder.iterations() == [15, 10]
    state = folder.load(pytest.fail)
    assert state["iteration"] == 15
    assert torch.equal(state["weights"], _state(15)["weights"])
    assert state["list"] == [1, "two", None]
    assert folder.load(pytest.fail, iteration=10)["iteration"] == 10


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_newest_falls_back_with_a_warning(tmp_path: Path, damage: str) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(_state(5), 5)
    newest = folder.save(_state(10), 10)
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    newest.write_bytes({"cut": content[:-100], "flip": content, "empty": b""}[damage])
    warnings: list[str] = []
    assert folder.load(warnings.append)["iteration"] == 5
    assert len(warnings) == 1
    assert newest.name in warnings[0]


def test_nothing_but_damage_is_an_error(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(_state(5), 5).write_bytes(b"gone")
    with pytest.raises(ForgettableSegError) as caught:
        folder.load(lambda text: None)
    assert caught.value.code == ErrorCode.CHECKPOINT_INVALID


def test_half_written_files_are_passed_over_and_removed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(_state(5), 5)
    leftover = tmp_path / "writing-000000010.tmp"
    leftover.write_bytes(b"half")
    assert folder.load(pytest.fail)["iteration"] == 5
    assert not leftover.exists()


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(_state(5), 5)

    def full(state: dict, stream: object) -> None:
        stream.write(b"some bytes")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(ForgettableSegError, match="full") as caught:
        folder.save(_state(10), 10)
    assert caught.value.code == ErrorCode.DISK_FULL
    assert [path.suffix for path in tmp_path.iterdir()] == [".pt"]
    assert folder.load(pytest.fail)["iteration"] == 5


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (pytest.fail, ("a checkpoint ran code",))

    folder = CheckpointFolder(tmp_path)
    folder.save({"trap": Trap()}, 1)
    with pytest.raises(ForgettableSegError) as caught:
        folder.load(lambda text: None)
    assert caught.value.code == ErrorCode.CHECKPOINT_INVALID
