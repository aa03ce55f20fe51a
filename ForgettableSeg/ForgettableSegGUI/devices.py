"""The devices that a model can run on, as the screen calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .i18n import tr as _


def deviceTitle(device: str) -> str:
    """Return how a device is called on the screen."""
    titles = {"auto": _("Automatic"), "cpu": _("CPU"), "mps": _("Apple GPU (mps)"), "cuda": _("GPU (cuda)")}
    return titles.get(device, device.replace("cuda:", _("GPU ")))


def deviceChoices(report: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return (device, title) of what can be chosen; Automatic and CPU before a check has told more."""
    choices = [("auto", deviceTitle("auto"))]
    for device in (report or {}).get("devices") or ():
        name, description = str(device.get("name")), str(device.get("description") or "")
        choices.append(
            (name, f"{deviceTitle(name)} · {description}" if description and name != "cpu" else deviceTitle(name))
        )
    if all(name != "cpu" for name, _title in choices):
        choices.append(("cpu", deviceTitle("cpu")))
    return choices
