"""PySide6 stand-ins for the ctk and qMRML widgets that the panels use, close enough to lay them out and drive them."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Property, QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPalette
from PySide6.QtWidgets import (
    QAbstractButton,
    QComboBox,
    QDoubleSpinBox,
    QGroupBox,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QSlider,
    QStyle,
    QStyleOptionButton,
    QToolButton,
    QWidget,
)

HEADER_HEIGHT = 24


def _value(name: str, kind: type, default: Any) -> Property:
    """A property that only keeps what it is given."""
    return Property(
        kind, lambda self: self.__dict__.get(name, default), lambda self, v: self.__dict__.update({name: v})
    )


class qMRMLWidget(QWidget):
    mrmlSceneChanged = Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        """In the application the .ui file connects the signal to the slot of each child; a test reads that there."""
        self.mrmlSceneChanged.emit(scene)
        for child in self.findChildren(qMRMLNodeComboBox):
            child.setMRMLScene(scene)


class qMRMLNodeComboBox(QComboBox):
    """Lists the nodes of the scene, as the real one does, and follows nodes that come and go."""

    currentNodeChanged = Signal()  # without the node: PySide6 counts references to None wrongly
    nodeAdded = Signal()
    nodeAddedByUser = Signal()
    nodeTypes = _value("_types", list, [])
    showChildNodeTypes = _value("_children", bool, True)
    addEnabled = _value("_add", bool, True)
    removeEnabled = _value("_remove", bool, True)
    renameEnabled = _value("_rename", bool, False)
    baseName = _value("_base", str, "")

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._tags: list[int] = []
        self._none = False
        self._none_text = "None"
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.currentIndexChanged.connect(lambda _: self.currentNodeChanged.emit())

    def _get_none(self) -> bool:
        return self._none

    def _set_none(self, enabled: bool) -> None:
        self._none = enabled
        self._fill()

    def _get_text(self) -> str:
        return self._none_text

    def _set_text(self, text: str) -> None:
        self._none_text = text
        self._fill()

    noneEnabled = Property(bool, _get_none, _set_none)
    noneDisplay = Property(str, _get_text, _set_text)

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene, self._tags = scene, []
        if scene is not None:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
            self._tags = [scene.AddObserver(event, lambda *_: self._fill()) for event in events]
            self._tags.append(scene.AddObserver(scene.NodeAddedEvent, lambda *_: self.nodeAdded.emit()))
        self._fill()

    def mrmlScene(self) -> Any:
        return self._scene

    def currentNode(self) -> Any:
        identifier = self.currentData()
        return self._scene.GetNodeByID(identifier) if self._scene is not None and identifier else None

    def addNode(self) -> None:
        """Make a node, as "Create new" does."""
        node = self._scene.AddNewNodeByClass(self.nodeTypes[0])
        self.setCurrentNode(node)
        self.nodeAddedByUser.emit()

    def setCurrentNode(self, node: Any) -> None:
        identifier = node.GetID() if node is not None else ""
        self._fill()
        for index in range(self.count()):
            if self.itemData(index) == identifier:
                self.setCurrentIndex(index)
                return
        self.setCurrentIndex(-1)

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        kinds = list(self.nodeTypes)
        found = [
            self._scene.GetNthNodeByClass(index, kind)
            for kind in kinds
            for index in range(self._scene.GetNumberOfNodesByClass(kind))
        ]
        return [
            node
            for node in found
            if not node.GetHideFromEditors() and (self.showChildNodeTypes or node.GetClassName() in kinds)
        ]

    def _fill(self) -> None:
        if self._scene is not None and self._scene.IsBatchProcessing():
            return  # the real one takes no node in before the end of an import
        before = self.currentData()
        self.blockSignals(True)
        self.clear()
        if self._none:
            self.addItem(self._none_text, "")
        for node in self._nodes():
            self.addItem(node.GetName(), node.GetID())
        index = next((i for i in range(self.count()) if self.itemData(i) == before), 0 if self.count() else -1)
        self.setCurrentIndex(index)
        self.blockSignals(False)
        if (self.currentData() or "") != (before or ""):
            self.currentNodeChanged.emit()


class qMRMLSegmentationShow3DButton(QPushButton):
    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None

    def setSegmentationNode(self, node: Any) -> None:
        self._node = node

    def segmentationNode(self) -> Any:
        return self._node


class ctkCollapsibleButton(QAbstractButton):
    contentsCollapsed = Signal(bool)
    collapsedHeight = _value("_height", int, 10)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        self.setContentsMargins(0, HEADER_HEIGHT, 0, 0)
        self.clicked.connect(lambda: self._set(not self._collapsed))

    def _get(self) -> bool:
        return self._collapsed

    def _set(self, collapsed: bool) -> None:
        if collapsed != self._collapsed:
            self._collapsed = collapsed
            self._apply()
            self.contentsCollapsed.emit(collapsed)

    collapsed = Property(bool, _get, _set)

    def _apply(self) -> None:
        if self.layout() is not None:
            for index in range(self.layout().count()):
                widget = self.layout().itemAt(index).widget()
                if widget is not None:
                    widget.setVisible(not self._collapsed)
                elif self.layout().itemAt(index).layout() is not None:
                    inner = self.layout().itemAt(index).layout()
                    for position in range(inner.count()):
                        inner.itemAt(position).widget().setVisible(not self._collapsed)
        self.setMaximumHeight(HEADER_HEIGHT + self.collapsedHeight if self._collapsed else 16777215)
        self.updateGeometry()

    def childEvent(self, event: Any) -> None:
        super().childEvent(event)
        if event.added() and event.child().isWidgetType() and self._collapsed:
            event.child().hide()

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self._apply()

    def hitButton(self, position: Any) -> bool:
        return position.y() < HEADER_HEIGHT

    def sizeHint(self) -> QSize:
        return self._size("sizeHint")

    def minimumSizeHint(self) -> QSize:
        return self._size("minimumSize")

    def _size(self, which: str) -> QSize:
        if self._collapsed or self.layout() is None:
            return QSize(self.fontMetrics().horizontalAdvance(self.text()) + 30, HEADER_HEIGHT + self.collapsedHeight)
        inner = getattr(self.layout(), which)()
        return QSize(inner.width(), inner.height())

    def paintEvent(self, event: Any) -> None:
        painter = QPainter(self)
        option = QStyleOptionButton()
        option.initFrom(self)
        option.rect = self.rect().adjusted(0, 0, 0, HEADER_HEIGHT - self.height())
        option.state |= QStyle.StateFlag.State_Raised
        self.style().drawControl(QStyle.ControlElement.CE_PushButtonBevel, option, painter, self)
        painter.setPen(self.palette().color(QPalette.ColorRole.ButtonText))
        arrow = "▶" if self._collapsed else "▼"
        painter.drawText(option.rect.adjusted(8, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, f"{arrow}  {self.text()}")


class ctkCollapsibleGroupBox(QGroupBox):
    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(lambda on: self._set(not on))

    def _get(self) -> bool:
        return self._collapsed

    def _set(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        self.setChecked(not collapsed)
        self._apply()

    collapsed = Property(bool, _get, _set)

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self._apply()

    def _apply(self) -> None:
        for child in self.children():
            if isinstance(child, QWidget):
                child.setVisible(not self._collapsed and child.property("wanted_hidden") is not True)
        self.setMaximumHeight(HEADER_HEIGHT if self._collapsed else 16777215)


class ctkPathLineEdit(QWidget):
    currentPathChanged = Signal(str)
    settingKey = _value("_key", str, "")
    nameFilters = _value("_filters", list, [])
    minimumContentsLength = _value("_length", int, 0)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(1)
        self._combo = QComboBox(self)
        self._combo.setEditable(True)
        self._combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._combo.setMinimumContentsLength(6)
        self._combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._combo.editTextChanged.connect(self.currentPathChanged)
        browse = QToolButton(self)
        browse.setText("…")
        row.addWidget(self._combo, 1)
        row.addWidget(browse)
        self.setFocusProxy(self._combo)
        for child in (self._combo, browse):
            child.setObjectName("")

    def _get(self) -> str:
        return self._combo.currentText()

    def _set(self, path: str) -> None:
        self._combo.setEditText(path)

    currentPath = Property(str, _get, _set)

    def addCurrentPathToHistory(self) -> None:
        """Kept in the settings by the real one."""


class ctkSliderWidget(QWidget):
    valueChanged = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._slider = QSlider(Qt.Orientation.Horizontal, self)
        self._slider.setRange(0, 1000)
        self._spin = QDoubleSpinBox(self)
        self._spin.setRange(0.0, 99.0)
        row.addWidget(self._slider, 1)
        row.addWidget(self._spin)
        self._spin.valueChanged.connect(self._follow)
        self._slider.valueChanged.connect(self._lead)

    def _follow(self, value: float) -> None:
        span = self._spin.maximum() - self._spin.minimum()
        self._slider.blockSignals(True)
        self._slider.setValue(round(1000 * (value - self._spin.minimum()) / span) if span else 0)
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    def _lead(self, position: int) -> None:
        span = self._spin.maximum() - self._spin.minimum()
        self._spin.setValue(self._spin.minimum() + span * position / 1000)

    minimum = Property(float, lambda self: self._spin.minimum(), lambda self, v: self._spin.setMinimum(v))
    maximum = Property(float, lambda self: self._spin.maximum(), lambda self, v: self._spin.setMaximum(v))
    value = Property(float, lambda self: self._spin.value(), lambda self, v: self._spin.setValue(v))
    singleStep = Property(float, lambda self: self._spin.singleStep(), lambda self, v: self._spin.setSingleStep(v))
    decimals = Property(int, lambda self: self._spin.decimals(), lambda self, v: self._spin.setDecimals(v))
    suffix = Property(str, lambda self: self._spin.suffix(), lambda self, v: self._spin.setSuffix(v))
    tracking = _value("_tracking", bool, True)


WIDGETS = (
    qMRMLWidget,
    qMRMLNodeComboBox,
    qMRMLSegmentationShow3DButton,
    ctkCollapsibleButton,
    ctkCollapsibleGroupBox,
    ctkPathLineEdit,
    ctkSliderWidget,
)
