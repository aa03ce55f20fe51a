"""The module's widget without Slicer's base class: its sections, its notice, its log, its state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import qt
import slicer
import vtk

from ForgettableSegLib.resources import resources_dir

from . import application
from .finetune.panel import FineTunePanel
from .i18n import tr as _
from .models.panel import ModelsPanel
from .panel import Context, Panel
from .review.panel import ReviewPanel
from .segment.panel import SegmentPanel
from .session import Session
from .setup.panel import SetupPanel

_PATIENCE_MS = 150

PANELS: dict[str, type[Panel]] = {
    "segment": SegmentPanel,
    "review": ReviewPanel,
    "fineTune": FineTunePanel,
    "models": ModelsPanel,
    "setup": SetupPanel,
}


class ModuleView:
    """All sections of the module, wired to one session and one parameter node.

    Args:
        session: worker, models and devices.
        logic: the module's logic.
    """

    def __init__(self, session: Session, logic: Any) -> None:
        self.session = session
        self.widget = slicer.util.loadUI(str(resources_dir() / "UI" / "ForgettableSeg.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.context = Context(session=session, logic=logic, openSection=self.openSection)
        self.sections = {name: getattr(self.ui, f"{name}Section") for name in PANELS}
        for name, panelClass in PANELS.items():
            panel = panelClass(self.context)
            self.context.panels[name] = panel
            self.sections[name].layout().addWidget(panel.widget)
            self.sections[name].connect("contentsCollapsed(bool)", self._onSection(name))
        self.ui.noticeButton.connect("clicked(bool)", self.onNotice)
        self.ui.copyLogButton.connect("clicked(bool)", self.onCopyLog)
        self.ui.clearLogButton.connect("clicked(bool)", self.onClearLog)
        session.logged.connect(self.ui.logText.appendPlainText)
        session.packagesChanged.connect(self.showNotice)
        session.modelsChanged.connect(self.showNotice)
        self._observed: Any = None
        self._tag: int | None = None
        self._refreshing = False
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PATIENCE_MS)
        self._timer.connect("timeout()", self.refreshAll)

    @property
    def panels(self) -> dict[str, Panel]:
        """The panels by name."""
        return self.context.panels

    def setParameterNode(self, parameterNode: Any) -> None:
        """Show the state of another scene, or of none while a scene is closed."""
        previous = self.context.parameterNode
        if None not in (previous, parameterNode) and previous.parameterNode is parameterNode.parameterNode:
            self.refreshAll()  # the same state, wrapped once more: the widgets are connected to it already
            return
        self._timer.stop()
        if previous is not None and self._tag is not None:
            previous.RemoveObserver(self._tag)
            self._tag = None
        self.context.parameterNode = parameterNode
        for panel in self.panels.values():
            panel.setParameterNode(parameterNode, previous)
        if parameterNode is not None:
            self._tag = parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onModified)
            self.refreshAll()

    def showScene(self) -> None:
        """Show the state that a scene has brought with it."""
        if self.context.parameterNode is not None:
            for panel in self.panels.values():
                panel.showNodes()
            self.refreshAll()

    def refreshAll(self) -> None:
        """Let all panels show what holds now, so that a closed section is right before it is seen."""
        self._refresh(self.panels)

    def _refresh(self, names: Iterable[str]) -> None:
        if self._refreshing:  # a panel that sets a parameter while it is refreshed
            return
        self._refreshing = True
        try:
            for name in names:
                self.panels[name].refresh()
        finally:
            self._refreshing = False

    def enter(self) -> None:
        """The module was entered: look again what is installed, and which models there are."""
        self.session.readPackages()
        if not self.session.missing and not self.session.modelsKnown and not self.session.busy:
            self.session.refreshModels()
        for name, panel in self.panels.items():
            if not self.sections[name].collapsed:
                panel.onEnter()

    def openSection(self, name: str) -> None:
        """Open one section; the others close."""
        self.sections[name].collapsed = False

    def showNotice(self) -> None:
        """Say at the top what keeps the module from working, and where to mend it."""
        missing = self.session.missing
        noModels = self.session.modelsKnown and not self.session.models
        if missing:
            self.ui.noticeLabel.setText(_("Some Python packages are not installed yet."))
            self.ui.noticeButton.setText(_("Open Setup"))
        elif noModels:
            self.ui.noticeLabel.setText(_("There is no model on this computer yet."))
            self.ui.noticeButton.setText(_("Open Models"))
        self.ui.noticeFrame.setVisible(bool(missing) or noModels)

    def onNotice(self, _checked: bool = False) -> None:
        """Go to where the notice is about."""
        self.openSection("setup" if self.session.missing else "models")

    def onCopyLog(self, _checked: bool = False) -> None:
        """Copy the log."""
        application.copyText(self.ui.logText.toPlainText())

    def onClearLog(self, _checked: bool = False) -> None:
        """Empty the log."""
        self.ui.logText.clear()

    def forgetScene(self) -> None:
        """The scene is being closed."""
        self.setParameterNode(None)
        for panel in self.panels.values():
            panel.forgetScene()

    def _onSection(self, name: str) -> Any:
        def collapsed(closed: bool) -> None:
            if closed:
                return
            for other, section in self.sections.items():
                if other != name:
                    section.collapsed = True
            self.panels[name].onEnter()

        return collapsed

    def _onModified(self, _caller: Any, _event: Any) -> None:
        self._refresh(name for name in PANELS if not self.sections[name].collapsed)
        self._timer.start()  # the closed ones follow when nothing has changed for a moment
