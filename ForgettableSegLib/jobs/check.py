"""The job `check`: what is installed here, what can compute, and does it."""

from __future__ import annotations

import time
from typing import Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import CheckRequest
from ForgettableSegLib.jobs.versions import REQUIRED_PACKAGES, package_versions


def run(request: CheckRequest, context: JobContext) -> JobResult:
    """Return versions and devices, after a small network has computed on the device asked for.

    Raises:
        ForgettableSegError: PACKAGE_MISSING, DEVICE_UNAVAILABLE, or INTERNAL if the device computes wrongly.
    """
    versions = package_versions()
    missing = [name for name in REQUIRED_PACKAGES if versions[name] is None]
    if missing:
        raise ForgettableSegError(
            ErrorCode.PACKAGE_MISSING,
            f"These Python packages are not installed: {', '.join(missing)}.",
            hint="Install them in the Setup section of the module, or with pip.",
        )
    context.progress("check", 0, 1)
    from ForgettableSegLib.inference.device import device_report, resolve_device

    device = resolve_device(request.device)
    seconds = _compute_on(device)
    context.progress("check", 1, 1)
    report = device_report()
    result = {"versions": versions, "device": str(device), "seconds": round(seconds, 3), **report}
    return JobResult(result=result, text=_as_text(result))


def _compute_on(device: Any) -> float:
    """Train a layer for a step there and compare with the CPU; return the seconds that it took."""
    import torch
    from torch import nn

    started = time.monotonic()
    layer = nn.Conv2d(1, 4, 3, padding=1)
    image = torch.linspace(-1, 1, 32 * 32).reshape(1, 1, 32, 32)
    expected = layer(image).square().mean()
    loss = layer.to(device)(image.to(device)).square().mean()
    loss.backward()
    if not torch.isfinite(layer.weight.grad).all() or not torch.allclose(loss.cpu(), expected, rtol=1e-2):
        raise ForgettableSegError(
            ErrorCode.DEVICE_UNAVAILABLE,
            f"The device {device} computes wrong numbers.",
            hint="Choose the device cpu, and update the driver and PyTorch.",
        )
    return time.monotonic() - started


def _as_text(result: dict[str, Any]) -> str:
    lines = [f"{name} {version or 'is not installed'}" for name, version in result["versions"].items()]
    lines += [f"device {each['name']}: {each['description']}" for each in result["devices"]]
    return "\n".join([*lines, f"The device {result['device']} works ({result['seconds']} s)."])
