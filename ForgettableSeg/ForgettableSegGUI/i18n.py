"""Translation of the texts that users see."""

from __future__ import annotations

try:
    from slicer.i18n import tr
except ImportError:  # outside the application there is nothing to translate into

    def tr(text: str) -> str:
        """Return the text as it is."""
        return text


__all__ = ["tr"]
