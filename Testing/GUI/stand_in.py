"""The application around the panels, without the application: real MRML from slicer-core, PySide6 for Qt, and stand-ins
for the few functions of `slicer.app`, `slicer.util` and other modules that the panels call."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import parameter_node
import pythonqt
import slicer
import slicer.util
import slicer_names
import standin_widgets
from ForgettableSegMRML.headless import HeadlessSession
from PySide6.QtUiTools import QUiLoader
from PySide6.QtWidgets import QApplication, QWidget


class Application:
    """What was asked of the application, and what it answers.

    Attributes:
        jumps: places that the slice views were sent to.
        asked: questions; `answer` is what they get.
        copied: texts on the clipboard.
        opened: modules, tables, charts and folders that were opened.
    """

    def __init__(self) -> None:
        self.session = HeadlessSession()
        self.jumps: list[tuple[float, ...]] = []
        self.asked: list[str] = []
        self.answer = True
        self.copied: list[str] = []
        self.opened: list[Any] = []

    def ask(self, question: str, *_arguments: Any, **_options: Any) -> bool:
        """Answer a question."""
        self.asked.append(question)
        return self.answer


class _Logic:
    """The base class of a module's logic."""

    moduleName = "ForgettableSeg"

    def __init__(self, parent: Any = None) -> None:
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetModuleName(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class _Widget:
    """The base class of a module's widget."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent
        self.layout = parent.layout()

    def setup(self) -> None:
        """The developer's section is not made."""

    def onReload(self) -> None:
        """Nothing is loaded again."""


class _Module:
    """The base class of a module."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent


class _Test:
    """The base class of a module's self test."""

    def delayDisplay(self, message: str, *_arguments: Any) -> None:
        """Show a message."""

    @staticmethod
    def assertTrue(value: Any, message: str = "") -> None:
        """Fail where the value is not true."""
        assert value, message


def install() -> Application:
    """Make `qt`, `ctk` and the missing parts of `slicer` importable; returns the application that they talk to."""
    slicer_names.look_like_the_application()
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    qtApplication = QApplication.instance() or QApplication([])
    qtApplication.setStyle("Fusion")
    application = Application()
    slicer.mrmlScene = application.session.scene
    sys.modules["qt"] = pythonqt.makeQt()
    sys.modules["ctk"] = ModuleType("ctk")
    _addModule("slicer.i18n", tr=lambda text: text, translate=lambda _context, text: text)
    _addModule(
        "slicer.parameterNodeWrapper",
        parameterNodeWrapper=parameter_node.parameterNodeWrapper,
        Choice=parameter_node.Choice,
        WithinRange=parameter_node.WithinRange,
    )
    _addModule(
        "slicer.ScriptedLoadableModule",
        ScriptedLoadableModule=_Module,
        ScriptedLoadableModuleWidget=_Widget,
        ScriptedLoadableModuleLogic=_Logic,
        ScriptedLoadableModuleTest=_Test,
    )
    slicer.app = SimpleNamespace(
        connect=lambda _signal, _callback: True,
        layoutManager=lambda: None,
        clipboard=lambda: SimpleNamespace(setText=application.copied.append),
        applicationLogic=lambda: application.session.applicationLogic,
        testingEnabled=lambda: True,
    )
    markups = SimpleNamespace(JumpSlicesToLocation=lambda r, a, s, _centred: application.jumps.append((r, a, s)))
    slicer.modules = SimpleNamespace(markups=SimpleNamespace(logic=lambda: markups))
    _fillUtil(application)
    return application


def _fillUtil(application: Application) -> None:
    slicer.util.loadUI = loadUI
    slicer.util.childWidgetVariables = childWidgetVariables
    slicer.util.confirmYesNoDisplay = application.ask
    slicer.util.startupEnvironment = lambda: dict(os.environ)
    slicer.util.setSliceViewerLayers = lambda **layers: application.opened.append(layers)
    slicer.util.selectModule = application.opened.append
    slicer.util.mainWindow = lambda: None


def _addModule(name: str, **content: Any) -> None:
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
    setattr(slicer, name.rpartition(".")[2], module)


def loadUI(path: str) -> pythonqt.Wrapped:
    """Load a .ui file with the stand-ins for Slicer's widgets."""
    loader = QUiLoader()
    for widget in standin_widgets.WIDGETS:
        loader.registerCustomWidget(widget)
    loaded = loader.load(path)
    assert loaded is not None, loader.errorString()
    return pythonqt.Wrapped(loaded)


def childWidgetVariables(widget: pythonqt.Wrapped) -> SimpleNamespace:
    """The named children of a widget."""
    children = [widget.target, *widget.target.findChildren(QWidget)]
    return SimpleNamespace(
        **{child.objectName(): pythonqt.Wrapped(child) for child in children if child.objectName().isidentifier()}
    )


def spin(until: Callable[[], bool], timeout: float = 60.0) -> bool:
    """Let the application handle its events until something holds; False where the time is over."""
    deadline = time.monotonic() + timeout
    while not until():
        if time.monotonic() > deadline:
            return False
        QApplication.processEvents()
        time.sleep(0.005)
    return True


def click(widget: pythonqt.Wrapped) -> None:
    """Press a button as a user does: one that is disabled stays as it is."""
    widget.target.click()
    QApplication.processEvents()
