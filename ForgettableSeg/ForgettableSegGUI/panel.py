"""What all panels have in common: their .ui file, their part of the parameter node, the state of their job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import qt
import slicer

from ForgettableSegLib.resources import resources_dir

from .job_state import PROGRESS_STEPS, JobState
from .session import Session


@dataclass
class Context:
    """What the module gives its panels.

    Args:
        session: worker, models and devices.
        logic: the module's logic.
        openSection: opens the section of that name.
    """

    session: Session
    logic: Any
    openSection: Callable[[str], None]
    parameterNode: Any = None
    panels: dict[str, Panel] = field(default_factory=dict)


class Panel:
    """One section of the module: a widget from a .ui file and the code that fills it.

    Args:
        context: shared with the other panels.
    """

    uiName = ""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.widget = slicer.util.loadUI(str(resources_dir() / "UI" / f"{self.uiName}.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        self._guiTag: Any = None

    @property
    def session(self) -> Session:
        """Worker, models and devices."""
        return self.context.session

    @property
    def parameterNode(self) -> Any:
        """The state in the scene, None while a scene is being closed."""
        return self.context.parameterNode

    def setParameterNode(self, parameterNode: Any, previous: Any) -> None:
        """Connect the widgets to another parameter node, or to none: then nothing can be pressed."""
        if previous is not None and self._guiTag is not None:
            previous.disconnectGui(self._guiTag)
        # `connectGui` does not return its tag in every version, and without it nothing could be disconnected.
        self._guiTag = None if parameterNode is None else parameterNode.connectParametersToGui(self._widgets())
        self.widget.setEnabled(parameterNode is not None)

    def showNodes(self) -> None:
        """Let the node selectors show what the parameter node holds; they miss the nodes of a scene that is loaded."""
        for name, widget in self._widgets().items():
            if widget.inherits("qMRMLNodeComboBox"):
                widget.setCurrentNode(self.parameterNode.getValue(name))

    def _widgets(self) -> dict[str, Any]:
        """The widgets that show a parameter, by its name."""
        named = ((widget.property("SlicerParameterName"), widget) for widget in vars(self.ui).values())
        return {str(name): widget for name, widget in named if name}

    def refresh(self) -> None:
        """Show what holds now; called after every change."""

    def forgetScene(self) -> None:
        """The scene is being closed."""

    def onEnter(self) -> None:
        """The section was opened, or the module was entered while it is open."""

    @staticmethod
    def choose(combo: qt.QComboBox, choices: Sequence[tuple[str, str]], current: str) -> None:
        """Fill a combo box with (value, title) and select a value, without being heard."""
        combo.blockSignals(True)
        combo.clear()
        for value, title in choices:
            combo.addItem(title, value)
        index = next((position for position, (value, _title) in enumerate(choices) if value == current), -1)
        combo.setCurrentIndex(index)
        combo.blockSignals(False)

    @staticmethod
    def chosen(combo: qt.QComboBox) -> str:
        """Return the value that is selected in a combo box."""
        return str(combo.itemData(combo.currentIndex) or "") if combo.currentIndex >= 0 else ""

    @staticmethod
    def say(label: qt.QLabel, text: str) -> None:
        """Show a sentence, or nothing."""
        label.setText(text)
        label.setVisible(bool(text))

    @staticmethod
    def showJob(bar: qt.QProgressBar, label: qt.QLabel, state: JobState) -> None:
        """Show how far a job is."""
        bar.setVisible(state.running)
        fraction = state.fraction()
        if fraction is None:
            bar.setRange(0, 0)
        else:
            bar.setRange(0, PROGRESS_STEPS)
            bar.setValue(round(PROGRESS_STEPS * fraction))
        Panel.say(label, state.text())
