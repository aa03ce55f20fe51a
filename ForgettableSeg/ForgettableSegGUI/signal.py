"""Signals between plain Python objects, for PythonQt cannot define Qt signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Signal:
    """Calls whoever is connected, in the order of connecting.

    Example:
        >>> changed = Signal()
        >>> changed.connect(print)
        >>> changed.emit("hello")
        hello
    """

    def __init__(self) -> None:
        self._callbacks: list[Callable[..., None]] = []

    def connect(self, callback: Callable[..., None]) -> None:
        """Call this back from now on."""
        self._callbacks.append(callback)

    def disconnectAll(self) -> None:
        """Forget all callbacks."""
        self._callbacks.clear()

    def emit(self, *arguments: Any) -> None:
        """Call all back."""
        for callback in tuple(self._callbacks):
            callback(*arguments)
