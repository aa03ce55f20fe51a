"""The sample bank as a gallery of small pictures; a click goes to the case at that slice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import qt
from ForgettableSegMRML.thumbnails import ThumbnailMaker

from ForgettableSegLib.errors import ForgettableSegError

from .bank import BankSample, bankFromList, sampleCaption, sampleToolTip

MAX_SHOWN = 60
"""More pictures than these are neither looked at nor quickly made."""

_PICTURE_SIZE = 96


class BankGallery:
    """Fills a list widget with the samples of the bank, the hardest first, one picture at a time.

    Args:
        widget: the list widget.
        onChosen: called with the case and the place (RAS, mm) of the sample that was clicked.
    """

    def __init__(self, widget: qt.QListWidget, onChosen: Callable[[str, tuple[float, float, float]], None]) -> None:
        self.widget, self._onChosen = widget, onChosen
        self._maker = ThumbnailMaker(size=_PICTURE_SIZE)
        self._cases: dict[str, Mapping[str, Any]] = {}
        self._values: dict[str, int] = {}
        self._samples: list[BankSample] = []
        self._waiting: Iterator[int] = iter(())
        self._icons: dict[tuple[Any, ...], qt.QIcon] = {}
        self._drawing = False
        widget.connect("itemClicked(QListWidgetItem*)", self.onClicked)

    def setCases(self, cases: list[Mapping[str, Any]], values: Mapping[str, int]) -> None:
        """Tell where the files of the cases lie.

        Args:
            cases: as the request holds them.
            values: label value of each class by its name.
        """
        self.clear()
        self._icons = {}
        self._cases = {str(case["id"]): case for case in cases}
        self._values = dict(values)

    def read(self, path: Path) -> None:
        """Show the samples of a bank file; an unreadable one is left aside."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        self.clear()
        self._samples = bankFromList(content, sliceAxis=_sliceAxis(path.parent / "config.json"))[:MAX_SHOWN]
        for number, sample in enumerate(self._samples):
            item = qt.QListWidgetItem(sampleCaption(sample))
            item.setData(qt.Qt.UserRole, number)
            item.setToolTip(sampleToolTip(sample))
            if (icon := self._icons.get(_key(sample))) is not None:
                item.setIcon(icon)
            self.widget.addItem(item)
        # Case by case, so that each volume is read once.
        missing = [number for number, sample in enumerate(self._samples) if _key(sample) not in self._icons]
        self._waiting = iter(sorted(missing, key=lambda number: self._samples[number].case))
        if not self._drawing:
            self._drawing = True
            qt.QTimer.singleShot(0, self._drawNext)

    def clear(self) -> None:
        """Show nothing."""
        self._samples, self._waiting = [], iter(())
        self.widget.clear()

    def onClicked(self, item: qt.QListWidgetItem) -> None:
        """Go to the case at that slice."""
        sample = self._samples[int(item.data(qt.Qt.UserRole))]
        self._onChosen(sample.case, sample.position)

    def _drawNext(self) -> None:
        """Make one picture and come back, so that the application stays responsive."""
        number = next(self._waiting, None)
        if number is None:
            self._drawing = False
            return
        pixmap = qt.QPixmap()
        picture = self._picture(self._samples[number])
        if picture and pixmap.loadFromData(qt.QByteArray(picture)):
            icon = self._icons[_key(self._samples[number])] = qt.QIcon(pixmap)
            self.widget.item(number).setIcon(icon)
        qt.QTimer.singleShot(0, self._drawNext)

    def _picture(self, sample: BankSample) -> bytes:
        """The picture of a sample, nothing where its case cannot be read."""
        case = self._cases.get(sample.case)
        if case is None:
            return b""
        try:
            return self._maker.png(
                case["images"][0],
                sample.position,
                sliceAxis=sample.sliceAxis,
                labelPath=case.get("label") or None,
                labelValue=self._values.get(sample.className),
            )
        except ForgettableSegError:
            return b""


def _key(sample: BankSample) -> tuple[Any, ...]:
    """What a picture shows."""
    return sample.case, sample.position, sample.sliceAxis, sample.className


def _sliceAxis(config: Path) -> int:
    """Across which axis a run cuts its slices; axial where its configuration does not tell."""
    try:
        preprocessing = json.loads(config.read_text(encoding="utf-8"))["preprocessing"]
        return int(preprocessing.get("slice_axis") or 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0
