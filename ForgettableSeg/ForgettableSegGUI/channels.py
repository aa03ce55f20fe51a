"""The rows of the panels in which a volume is chosen for each channel of a model."""

from __future__ import annotations

from .i18n import tr as _
from .model_cards import ModelCard

MAX_CHANNELS = 4


def channelLabel(card: ModelCard | None, channel: int) -> str:
    """Return the label of an input row."""
    if card is None or len(card.channels) <= 1:
        return _("Volume:")
    name = card.channels[channel] if channel < len(card.channels) else ""
    return _("{channel}:").format(channel=name)


def visibleChannels(card: ModelCard | None) -> int:
    """Return how many input rows are shown: one for each channel, at least one."""
    return 1 if card is None else max(1, min(MAX_CHANNELS, len(card.channels)))
