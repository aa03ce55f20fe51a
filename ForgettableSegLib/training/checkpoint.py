"""Checkpoints: everything needed to go on bit for bit, written so that a kill at any moment loses nothing.

A checkpoint is one file of tensors and plain types. Its name carries its SHA-256, so that a damaged file is known for
what it is, and it appears under that name only when it is complete on the disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.training.distributed import ProcessGroup

KEPT = 2
# A run that cannot keep this much beside its checkpoints would stop half-way.
SPARE_BYTES = 200 * 2**20
_NAME = re.compile(r"^(\d{9})-([0-9a-f]{64})\.pt$")


class CheckpointFolder:
    """The checkpoints of a run.

    Args:
        folder: where they lie; made when the first is written.
        prefix: tells the ranks of a distributed run apart.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder / prefix if prefix else folder

    def save(self, state: dict[str, Any], iteration: int) -> Path:
        """Write a checkpoint and remove all but the last two.

        Args:
            state: tensors and plain types, nested.
            iteration: iterations done.

        Returns:
            The checkpoint's file.

        Raises:
            ForgettableSegError: DISK_FULL or OUTPUT_UNWRITABLE; the earlier checkpoints are left as they were.
        """
        temporary = self.folder / f"writing-{iteration:09d}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                torch.save(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            target = self.folder / f"{iteration:09d}-{_sha256(temporary)}.pt"
            temporary.replace(target)
            _sync_folder(self.folder)
        except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
            temporary.unlink(missing_ok=True)
            raise self._unwritable(error) from error
        for old in self.files()[KEPT:]:
            old.unlink(missing_ok=True)
        return target

    def files(self) -> list[Path]:
        """Complete checkpoints, the newest first."""
        if not self.folder.is_dir():
            return []
        files = [path for path in self.folder.iterdir() if _NAME.match(path.name)]
        return sorted(files, key=lambda path: (path.name[:9], path.stat().st_mtime_ns), reverse=True)

    def load(self, warn: Callable[[str], None], *, iteration: int | None = None) -> dict[str, Any] | None:
        """Read the newest checkpoint that is not damaged.

        Args:
            warn: is told of every damaged one that was passed over.
            iteration: read the checkpoint of this iteration only.

        Returns:
            The state, or None if there is no checkpoint at all.

        Raises:
            ForgettableSegError: CHECKPOINT_INVALID if there are checkpoints and all are damaged.
        """
        self._remove_half_written()
        files = [path for path in self.files() if iteration is None or int(path.name[:9]) == iteration]
        for path in files:
            if _sha256(path) == _NAME.match(path.name).group(2):
                # Whole, but made by somebody else: anything beside tensors and plain types is refused unread.
                with suppress(Exception):
                    return torch.load(path, map_location="cpu", weights_only=True)
            warn(f"The checkpoint {path.name} is damaged and was passed over; the run goes on from the one before it.")
        if files:
            msg = f"All checkpoints in {self.folder} are damaged."
            hint = "Start the training again in a new folder."
            raise ForgettableSegError(ErrorCode.CHECKPOINT_INVALID, msg, hint=hint)
        return None

    def load_common(self, group: ProcessGroup, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest checkpoint that all ranks have whole; see `load`."""
        iteration = None
        if group.is_distributed:
            own = self.iterations()
            # Ranks keep two, and differ by one checkpoint at most: the smallest of the newest is on all of them.
            iteration = int(group.smallest(own[0] if own else -1))
        return self.load(warn, iteration=iteration)

    def iterations(self) -> list[int]:
        """Iterations of the checkpoints that are whole, the newest first."""
        return [int(path.name[:9]) for path in self.files() if _sha256(path) == _NAME.match(path.name).group(2)]

    def _remove_half_written(self) -> None:
        if self.folder.is_dir():
            for leftover in self.folder.glob("writing-*.tmp"):
                leftover.unlink(missing_ok=True)

    def _unwritable(self, error: Exception) -> ForgettableSegError:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not full and self.folder.is_dir():
            full = shutil.disk_usage(self.folder).free < 2**20
        if full or isinstance(error, RuntimeError):
            msg = f"The disk of {self.folder} is full; the run can be resumed from its last checkpoint."
            return ForgettableSegError(ErrorCode.DISK_FULL, msg, hint="Free some space and resume the run.")
        msg = f"The checkpoint folder {self.folder} cannot be written: {error}."
        return ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, msg)


def require_space(folder: Path, network: torch.nn.Module) -> None:
    """Refuse a disk without room for three checkpoints at a time, each with weights, momentum and the best weights.

    Raises:
        ForgettableSegError: DISK_FULL.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    needed = 3 * 3 * size + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        msg = f"The disk of {folder} has {free / 2**20:.0f} MB free, but the run needs {needed / 2**20:.0f} MB."
        raise ForgettableSegError(ErrorCode.DISK_FULL, msg, hint="Free some space or choose another folder.")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
