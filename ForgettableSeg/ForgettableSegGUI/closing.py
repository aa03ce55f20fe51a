"""Asking before Slicer is closed while a training runs."""

from __future__ import annotations

from typing import Any

import qt
import slicer

from . import application
from .i18n import tr as _
from .session import Session


def closeQuestion(session: Session) -> str:
    """Return what is asked before Slicer is closed, or nothing where it may be closed at once."""
    if not session.busy:
        return ""
    return _(
        "ForgettableSeg is still at work ({title}). Close Slicer nevertheless? A training can be resumed later "
        "from its last checkpoint."
    ).format(title=session.busy)


def mayClose(session: Session) -> bool:
    """Ask where there is something to ask; returns whether Slicer may be closed."""
    question = closeQuestion(session)
    return not question or application.ask(question)


class CloseGuard:
    """Asks before the main window is closed while a job runs.

    Args:
        session: knows the job.
    """

    def __init__(self, session: Session) -> None:
        self._window = slicer.util.mainWindow()
        self._filter: Any = None
        if self._window is None:
            return

        class Filter(qt.QWidget):
            """Sees the events of the main window before the window does."""

            def eventFilter(self, _watched: Any, event: Any) -> bool:
                if event.type() == qt.QEvent.Close and not mayClose(session):
                    event.ignore()
                    return True
                return False

        self._filter = Filter()
        self._window.installEventFilter(self._filter)

    def remove(self) -> None:
        """Ask no more."""
        if self._filter is not None:
            self._window.removeEventFilter(self._filter)
            self._filter = None
