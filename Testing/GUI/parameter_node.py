"""A stand-in for slicer.parameterNodeWrapper: typed state on a real parameter node, connected to widgets by name.

It knows the types and widgets that the panels use, and refuses the others as the real one does.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import slicer
import vtk
from pythonqt import Wrapped


class WithinRange:
    """Lowest and highest value."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum


class Choice:
    """The values that there are to choose from."""

    def __init__(self, choices: list[Any]) -> None:
        self.choices = choices


def parameterNodeWrapper(cls: type) -> type:
    """Give a class of annotations its properties."""
    cls.parameters = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        kind, notes = hint, ()
        if typing.get_origin(hint) is typing.Annotated:
            kind, *notes = typing.get_args(hint)
        default = getattr(cls, name, {str: "", int: 0, float: 0.0, bool: False}.get(kind))
        cls.parameters[name] = (kind, tuple(notes), default)
        setattr(cls, name, property(_getter(name), _setter(name)))
    methods = (_init, getValue, setValue, connectParametersToGui, disconnectGui, _show, addObserver, removeObserver)
    for method in methods:
        cls_name = {"_init": "__init__", "addObserver": "AddObserver", "removeObserver": "RemoveObserver"}
        setattr(cls, cls_name.get(method.__name__, method.__name__), method)
    return cls


def _getter(name: str) -> Callable[[Any], Any]:
    return lambda self: self.getValue(name)


def _setter(name: str) -> Callable[[Any, Any], None]:
    return lambda self, value: self.setValue(name, value)


def _init(self: Any, node: slicer.vtkMRMLScriptedModuleNode) -> None:
    self.parameterNode, self._guis, self._writing, self._observer = node, {}, False, None
    for name, (kind, _notes, default) in self.parameters.items():
        if (
            typing.get_origin(kind) is not list
            and not _isNode(kind)
            and node.GetParameter(name) == ""
            and default != ""
        ):
            self.setValue(name, default)


def getValue(self: Any, name: str) -> Any:
    """Value of a parameter."""
    kind, _notes, default = self.parameters[name]
    node = self.parameterNode
    if _isNode(kind):
        return node.GetNodeReference(name)
    if typing.get_origin(kind) is list:
        return [node.GetNodeReference(f"{name}_{index}") for index in range(int(node.GetParameter(name) or 0))]
    text = node.GetParameter(name)
    if kind is bool:
        return text == "True"
    return kind(text) if text else default


def setValue(self: Any, name: str, value: Any) -> None:
    """Set a parameter; a value of the wrong type or out of range is refused."""
    kind, notes, _default = self.parameters[name]
    node = self.parameterNode
    if _isNode(kind):
        assert value is None or isinstance(value, kind), f"{name} = {value!r}"
        if node.GetNodeReference(name) is not value:
            node.SetNodeReferenceID(name, value.GetID() if value is not None else None)
            node.Modified()
        return
    if typing.get_origin(kind) is list:
        for index, each in enumerate(value):  # a role of its own for each, so that a node that goes leaves a gap
            node.SetNodeReferenceID(f"{name}_{index}", each.GetID() if each is not None else None)
        node.SetParameter(name, str(len(value)))
        node.Modified()
        return
    assert isinstance(value, (int, float) if kind is float else kind), f"{name} = {value!r}"
    for note in notes:
        if isinstance(note, WithinRange) and not note.minimum <= value <= note.maximum:
            raise ValueError(name)
        if isinstance(note, Choice) and value not in note.choices:
            raise ValueError(name)
    node.SetParameter(name, str(value))


def connectParametersToGui(self: Any, widgets: dict[str, Any]) -> int:
    """Connect widgets to the parameters of these names."""
    connections = []
    for name, widget in widgets.items():
        kind, notes, _default = self.parameters[name]
        connections.append((name, _Connection(widget, kind, notes)))
    tag = len(self._guis) + 1
    self._guis[tag] = connections
    for name, connection in connections:
        connection.write(self.getValue(name))
        connection.heard = lambda value, name=name: self._writing or self.setValue(name, value)
    if self._observer is None:
        self._observer = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._show())
    return tag


def disconnectGui(self: Any, tag: int) -> None:
    """Let go of the widgets."""
    for _name, connection in self._guis.pop(tag, ()):
        connection.heard = lambda value: None
    if not self._guis and self._observer is not None:
        self.parameterNode.RemoveObserver(self._observer)
        self._observer = None


def _show(self: Any) -> None:
    if not self._writing:
        self._writing = True
        for connections in list(self._guis.values()):
            for name, connection in connections:
                connection.write(self.getValue(name))
        self._writing = False


def addObserver(self: Any, event: int, callback: Callable[..., None]) -> int:
    """Observe the node."""
    return self.parameterNode.AddObserver(event, callback)


def removeObserver(self: Any, tag: int) -> None:
    """Observe no longer."""
    self.parameterNode.RemoveObserver(tag)


class _Connection:
    """One widget and one parameter, of a pair of types that the real connectors know."""

    def __init__(self, widget: Wrapped, kind: Any, notes: tuple[Any, ...]) -> None:
        self.widget = widget.target
        self.heard: Callable[[Any], None] = lambda value: None
        className = type(self.widget).__name__
        choice = next((note.choices for note in notes if isinstance(note, Choice)), None)
        within = next((note for note in notes if isinstance(note, WithinRange)), None)
        if className == "qMRMLNodeComboBox" and _isNode(kind):
            self.widget.currentNodeChanged.connect(lambda: self.heard(self.widget.currentNode()))
            self.write = self.widget.setCurrentNode
        elif className == "QCheckBox" and kind is bool:
            self.widget.toggled.connect(lambda value: self.heard(value))
            self.write = self.widget.setChecked
        elif (className, kind) in (("QSpinBox", int), ("QDoubleSpinBox", float), ("ctkSliderWidget", float)):
            assert within is not None, f"{self.widget.objectName()} has no range"
            self.widget.setProperty("minimum", within.minimum)
            self.widget.setProperty("maximum", within.maximum)
            self.widget.valueChanged.connect(lambda value: self.heard(kind(value)))
            self.write = lambda value: self.widget.setProperty("value", value)
        elif className == "QComboBox" and kind is str and choice is not None:
            self.widget.clear()
            self.widget.addItems(choice)
            self.widget.currentIndexChanged.connect(lambda index: self.heard(choice[index]))
            self.write = lambda value: self.widget.setCurrentIndex(choice.index(value))
        elif className == "QLineEdit" and kind is str:
            self.widget.textChanged.connect(lambda text: self.heard(text))
            self.write = lambda text: self.widget.text() == text or self.widget.setText(text)
        else:
            msg = f"{className} {self.widget.objectName()} cannot show a {kind}"
            raise RuntimeError(msg)


def _isNode(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)
