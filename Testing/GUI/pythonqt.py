"""PySide6 seen the way PythonQt shows Qt: properties as attributes, signals by signature, no name that Slicer lacks.

Every name asked of a widget is looked up in what the running application told of itself (see `slicer_api`), so that
code that would fail in Slicer fails here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import PySide6.QtCore as QtCore
import PySide6.QtGui as QtGui
import PySide6.QtWidgets as QtWidgets
import slicer_api
import standin_widgets

_CLASSES = {widget.__name__: widget for widget in standin_widgets.WIDGETS}


def qtClass(name: str) -> type | None:
    """The PySide6 class, or our stand-in, of that name."""
    if name in _CLASSES:
        return _CLASSES[name]
    return next((getattr(module, name) for module in (QtWidgets, QtGui, QtCore) if hasattr(module, name)), None)


class Wrapped:
    """An object of Qt as PythonQt shows it."""

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "target", target)

    @property
    def _name(self) -> str:
        return type(self.target).__name__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        slicer_api.require(self._name, name)
        if self._isProperty(name):
            return wrap(self.target.property(name))
        found = getattr(self.target, name)
        return _Signal(self.target, name) if isinstance(found, QtCore.SignalInstance) else _Method(found)

    def __setattr__(self, name: str, value: Any) -> None:
        slicer_api.require(self._name, name)
        assert self._isProperty(name), f"{self._name}.{name} is not a property and cannot be assigned to"
        assert self.target.setProperty(name, unwrap(value)), f"{self._name}.{name} = {value!r} was refused"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wrapped) and other.target == self.target

    def __hash__(self) -> int:
        return hash(self.target)

    def connect(self, signature: str, callback: Callable[..., Any]) -> bool:
        """Connect a signal by its signature, which Slicer must know."""
        slicer_api.requireSignal(self._name, signature)
        name, _, arguments = signature.rstrip(")").partition("(")
        count = len(arguments.split(",")) if arguments else 0
        signal = getattr(self.target, name)

        def heard(*values: Any) -> None:
            callback(*(wrap(value) for value in values))

        if isinstance(self.target, standin_widgets.qMRMLNodeComboBox):
            signal.connect(lambda: heard(self.target.currentNode()))
        else:  # PySide6 chooses among the overloads of a signal by the number of arguments
            signal.connect([lambda: heard(), lambda a: heard(a), lambda a, b: heard(a, b)][count])
        return True

    def property(self, name: str) -> Any:
        """The value of a property, which every object of Qt tells."""
        return wrap(self.target.property(name))

    def _isProperty(self, name: str) -> bool:
        return isinstance(self.target, QtCore.QObject) and self.target.metaObject().indexOfProperty(name) >= 0


class _Method:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return wrap(self._function(*(unwrap(value) for value in arguments)))


class _Signal:
    def __init__(self, target: Any, name: str) -> None:
        self._target, self._signal = target, name

    def connect(self, callback: Callable[..., Any]) -> None:
        """Connect without a signature, as PythonQt allows too."""
        getattr(self._target, self._signal).connect(lambda *values: callback(*(wrap(value) for value in values)))


def wrap(value: Any) -> Any:
    """An object of Qt is wrapped; plain values stay; lists are gone through."""
    if isinstance(value, list | tuple):
        return [wrap(each) for each in value]
    module = type(value).__module__
    plain = not (module.startswith("PySide6") or module == standin_widgets.__name__)
    return value if plain or type(type(value)).__name__ == "EnumType" else Wrapped(value)


def unwrap(value: Any) -> Any:
    """What PySide6 takes for a value of ours."""
    if isinstance(value, Wrapped):
        return value.target
    if isinstance(value, _Callback):
        return value
    return value


class _Callback:
    pass


class _Class:
    """A class of Qt in the module `qt`: makes wrapped objects, holds enumerations."""

    def __init__(self, name: str) -> None:
        self._class = qtClass(name)
        self._className = name
        assert self._class is not None, f"Qt has no class {name}"

    def __call__(self, *arguments: Any) -> Wrapped:
        return Wrapped(self._class(*(unwrap(value) for value in arguments)))

    def __getattr__(self, name: str) -> Any:
        slicer_api.require(self._className, name)
        found = getattr(self._class, name)
        return _Method(found) if callable(found) and not isinstance(found, type) else _number(found)


def _number(value: Any) -> Any:
    """Values of enumerations, which Slicer's code may turn into numbers."""
    return value


class _QtModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name == "Qt":
            return QtCore.Qt
        if not re.match(r"Q[A-Z]", name):
            raise AttributeError(name)
        found = _Class(name)
        setattr(self, name, found)
        return found


def makeQt() -> ModuleType:
    """The module that Slicer's code imports as `qt`."""
    return _QtModule("qt")
