"""How many threads a process of ours computes with, and that they do not spin while they wait for each other.

OpenMP's threads wait in a loop by default, so beside another program each waits for one that is not running: a training
step then takes ten times as long. The variables are read when torch loads OpenMP, so this comes before torch.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

# Of OpenMP itself, and of GNU's (Linux) and LLVM's (macOS, Windows) libraries.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
NUMBER = "OMP_NUM_THREADS"
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def prepare_threads() -> None:
    """Set the variables that the user has not set. To be called first in a process, before torch is imported."""
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
    if NUMBER not in os.environ or _is_set_by_torchrun():
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        os.environ[NUMBER] = str(max(1, processors() // ranks))


def processors() -> int:
    """How many processors this process may use at once: those it may run on, or its container's share if less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, math.ceil(quota)) if quota < allowed else allowed


def cgroup_quota(root: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> float:
    """Processors that Linux' control groups, version 1 or 2, grant this process; infinity without a limit.

    Args:
        root: where the groups are mounted.
        own: file that names this process's groups.
    """
    quota = math.inf
    with contextlib.suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = root / controllers if controllers else root
            group = top / path.lstrip("/")
            # A group has no more than those it lies in; within a container only the top may be seen.
            for folder in (group, *group.parents):
                quota = min(quota, _quota_of(folder))
                if folder == top:
                    break
    return quota


def _quota_of(folder: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        limit, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return math.inf if limit == "max" else int(limit) / int(period)
    with contextlib.suppress(OSError, ValueError):
        limit, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return limit / period if limit > 0 else math.inf
    return math.inf


def _is_set_by_torchrun() -> bool:
    """Whether the number is torchrun's, which gives each of several ranks one thread where the user says nothing."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ[NUMBER] != "1":
        return False
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return NUMBER not in psutil.Process(os.getppid()).environ()
    return False
