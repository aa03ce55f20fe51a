"""Which device computes, and what the machine offers."""

from __future__ import annotations

import platform
import re
from typing import Any

import psutil
import torch

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

_CUDA = re.compile(r"cuda(?::(\d+))?")


def resolve_device(name: str = "auto") -> torch.device:
    """The device that a name stands for.

    Args:
        name: ``auto`` (the graphics card with the most free memory, else Apple's ``mps``, else ``cpu``), ``cpu``,
            ``mps``, ``cuda`` (as ``auto``, but a graphics card it must be) or ``cuda:n``.

    Raises:
        ForgettableSegError: DEVICE_UNAVAILABLE if this machine has no such device, or no device has that name.
    """
    name = name.strip().lower()
    if name == "auto":
        if torch.cuda.is_available():
            return _freest_card()
        return torch.device("mps" if _has_mps() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not _has_mps():
            raise _unavailable("This machine has no Apple GPU that PyTorch can use (device 'mps').")
        return torch.device("mps")
    match = _CUDA.fullmatch(name)
    if match is None:
        raise _unavailable(f"There is no device called '{name}'.", hint="Use auto, cpu, mps, cuda or cuda:0.")
    if not torch.cuda.is_available():
        raise _unavailable(f"PyTorch finds no NVIDIA GPU on this machine (device '{name}').")
    if match[1] is None:
        return _freest_card()
    if int(match[1]) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise _unavailable(f"There is no GPU number {match[1]}: this machine has {count}, counted from 0.")
    return torch.device(name)


def device_report() -> dict[str, Any]:
    """What this machine can compute on, for the set-up panel and for bug reports.

    Returns:
        ``torch`` (version), ``threads``, ``best`` (what ``auto`` means here) and ``devices``: a list of ``name``,
        ``description``, ``memory_free`` and ``memory_total`` (bytes; None where the device does not tell).
    """
    memory = psutil.virtual_memory()
    devices = [_entry("cpu", platform.processor() or platform.machine(), memory.available, memory.total)]
    if _has_mps():
        devices.append(_entry("mps", "Apple GPU", None, None))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            devices.append(_entry(f"cuda:{index}", torch.cuda.get_device_name(index), free, total))
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "best": str(resolve_device("auto")),
        "devices": devices,
    }


def _entry(name: str, description: str, free: int | None, total: int | None) -> dict[str, Any]:
    return {"name": name, "description": description, "memory_free": free, "memory_total": total}


def _freest_card() -> torch.device:
    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    return torch.device("cuda", free.index(max(free)))


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _unavailable(message: str, *, hint: str = "Choose the device 'auto' or 'cpu'.") -> ForgettableSegError:
    return ForgettableSegError(ErrorCode.DEVICE_UNAVAILABLE, message, hint=hint)
