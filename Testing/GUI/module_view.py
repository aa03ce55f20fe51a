"""The module in a window of the stand-in for the application."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pythonqt
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication, QTabWidget, QVBoxLayout, QWidget


class NoWorker:
    """A worker that keeps what it is asked and never answers; a test answers in its place."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], Callable[[dict[str, Any]], None]]] = []
        self.cancelled: list[str] = []
        self.paused: list[bool] = []
        self.client = SimpleNamespace(
            cancel=self.cancelled.append,
            pause=lambda: self.paused.append(True),
            resume=lambda: self.paused.append(False),
        )

    def submit(self, job: str, arguments: Any, onEvent: Callable[[dict[str, Any]], None]) -> str:
        """Keep a job."""
        self.asked.append((job, dict(arguments), onEvent))
        return str(len(self.asked))

    def answer(self, job: str, **event: Any) -> None:
        """Send an event of the last job of that kind."""
        heard = next(onEvent for name, _arguments, onEvent in reversed(self.asked) if name == job)
        heard({"id": "1", "time": 0.0, **event})

    def shutdown(self) -> None:
        """Nothing runs."""


class ModuleWindow:
    """The module's view in a window.

    Args:
        worker: runs the jobs; None for one that does nothing.
        packages: what is installed; None for all that is needed.
    """

    def __init__(self, worker: Any = None, packages: Callable[[], list[Any]] | None = None) -> None:
        from ForgettableSegGUI.module_view import ModuleView
        from ForgettableSegGUI.packages import installedPackages
        from ForgettableSegGUI.session import Session

        from ForgettableSeg import ForgettableSegLogic

        self.worker = worker or NoWorker()
        self.session = Session(self.worker, packages or installedPackages)
        self.logic = ForgettableSegLogic()
        self.view = ModuleView(self.session, self.logic)
        self.window = QWidget()
        QVBoxLayout(self.window).addWidget(self.view.widget.target)
        self.window.layout().setContentsMargins(0, 0, 0, 0)
        self.view.setParameterNode(self.logic.getParameterNode())
        self.window.show()
        self.view.enter()
        QApplication.processEvents()

    @property
    def parameters(self) -> Any:
        """The parameter node."""
        return self.view.context.parameterNode

    def panel(self, name: str) -> Any:
        """A panel, its section open."""
        self.view.openSection(name)
        QApplication.processEvents()
        return self.view.panels[name]

    def resize(self, width: int) -> None:
        """Give the window a width, and the height that it wants."""
        for _attempt in range(2):
            self.window.resize(width, max(500, self.window.sizeHint().height()))
            QApplication.processEvents()

    def tabs(self, name: str) -> list[Callable[[], None]]:
        """What opens each tab of a panel; one that does nothing for a panel without tabs."""
        found = self.view.panels[name].widget.target.findChildren(QTabWidget)
        if not found:
            return [lambda: None]
        return [lambda index=index: found[0].setCurrentIndex(index) for index in range(found[0].count())]

    def outside(self, width: int) -> list[str]:
        """Names of the visible widgets that reach beyond a width."""
        children = [child for child in self.window.findChildren(QWidget) if child.isVisible() and child.objectName()]
        return [
            child.objectName()
            for child in children
            if not child.objectName().startswith("qt_")
            and child.mapTo(self.window, child.rect().topRight()).x() > width
        ]

    def picture(self, width: int) -> QImage:
        """The window as it looks."""
        self.resize(width)
        return self.window.grab().toImage()

    def close(self) -> None:
        """Let go of the scene and the window."""
        self.view.setParameterNode(None)
        self.window.close()
        self.window.deleteLater()
        QApplication.processEvents()


def click(widget: pythonqt.Wrapped) -> None:
    """Press a button as a user does: one that is disabled stays as it is."""
    widget.target.click()
    QApplication.processEvents()
