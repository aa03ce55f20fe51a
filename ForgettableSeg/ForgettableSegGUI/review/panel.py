"""The Review panel: the heatmap, the hardest slices, the summary, and the way to the Segment Editor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from ForgettableSegMRML.heatmaps import (
    hideHeatmap,
    moveLegend,
    setHeatmapOpacity,
    setHeatmapThreshold,
    showHeatmap,
)
from ForgettableSegMRML.segmentations import segmentIDOfName

from ForgettableSegLib.errors import ForgettableSegError

from .. import application, results
from ..i18n import tr as _
from ..job_panel import JobPanel
from ..job_state import JobState
from ..model_cards import ModelCard
from ..panel import Context
from ..reviews import AUDITED, HardSlice, Review, channelMeaning, channelTitle
from ..table import fillTable, fitColumns, keyOfRow
from .export import exportReview
from .job import AuditJob
from .model import (
    CompareState,
    caseRows,
    caseSentence,
    classRows,
    neighbour,
    sliceRows,
    slicesOfClass,
)
from .queue import QueueTab, SuspectsJob
from .reference import Reference
from .suspects import FindState


class ReviewPanel(JobPanel):
    """Shows where a result is doubtful and brings the user there."""

    uiName = "ReviewPanel"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._slices: list[HardSlice] = []
        self._shownReview: Review | None = None
        self._shownNode: slicer.vtkMRMLSegmentationNode | None = None
        self._shownHeatmap: tuple[Any, ...] = ()
        self._place: HardSlice | None = None
        self._told = ""
        self._cases: list[slicer.vtkMRMLSegmentationNode] = []
        self._reference = Reference(self.ui, self.refresh)
        self._queue = QueueTab(self.ui, self._tell, self._keepQueue)
        self._openedQueue = ""
        fitColumns(self.ui.slicesTable, 1)
        self.ui.slicesTable.sortByColumn(2, qt.Qt.DescendingOrder)  # the hardest first, until the user sorts otherwise
        self.ui.casesTable.sortByColumn(1, qt.Qt.DescendingOrder)
        fitColumns(self.ui.classesTable, 0)
        fitColumns(self.ui.casesTable, 0)
        self.ui.channelComboBox.connect("currentIndexChanged(int)", self.onChannelChosen)
        self.ui.classComboBox.connect("currentIndexChanged(int)", self.onClassChosen)
        self.ui.slicesTable.connect("cellClicked(int,int)", self.onSliceClicked)
        self.ui.casesTable.connect("cellClicked(int,int)", self.onCaseClicked)
        self.ui.previousButton.connect("clicked(bool)", self.onPrevious)
        self.ui.nextButton.connect("clicked(bool)", self.onNext)
        self.ui.compareButton.connect("clicked(bool)", self.onCompare)
        self.ui.suspectsPathLineEdit.connect("currentPathChanged(QString)", self.onSuspectsPathChanged)
        self.ui.findButton.connect("clicked(bool)", self.onFind)
        self.ui.editButton.connect("clicked(bool)", self.onEdit)
        self.ui.exportPathLineEdit.connect("currentPathChanged(QString)", self.onExportPathChanged)
        self.ui.exportButton.connect("clicked(bool)", self.onExport)
        application.onLayoutChanged(lambda: moveLegend(slicer.mrmlScene))

    @property
    def segmentation(self) -> slicer.vtkMRMLSegmentationNode | None:
        """The reviewed segmentation."""
        return None if self.parameterNode is None else self.parameterNode.reviewSegmentation

    @property
    def card(self) -> ModelCard | None:
        """The model that made the reviewed segmentation, None where it is not known any more."""
        node = self.segmentation
        return None if node is None else self.session.model(results.modelOf(node))

    @property
    def heatmap(self) -> slicer.vtkMRMLVolumeNode | None:
        """The heatmap of the chosen channel."""
        node = self.segmentation
        return None if node is None else results.heatmapOf(node, self.parameterNode.heatmapChannel)

    def forgetScene(self) -> None:
        """The scene is closed: the case of the queue goes with it."""
        super().forgetScene()
        self._queue.forgetScene()

    def onEnter(self) -> None:
        """Choose the only result there is."""
        if self.parameterNode is not None and self.segmentation is None:
            reviewed = results.reviewedSegmentations(slicer.mrmlScene)
            if reviewed:
                self.parameterNode.reviewSegmentation = reviewed[-1][0]
        self._shownNode, self._shownHeatmap = None, ()
        self.refresh()

    def refresh(self) -> None:
        """Show the review of the chosen segmentation and its heatmap."""
        if self.parameterNode is None:
            return
        review = results.reviewOf(self.segmentation)
        channels = [] if self.segmentation is None else list(results.heatmapsOf(self.segmentation))
        if channels and self.parameterNode.heatmapChannel not in channels:
            self.parameterNode.heatmapChannel = channels[0]
        titles = [(channel, channelTitle(channel)) for channel in channels]
        self.choose(self.ui.channelComboBox, titles, self.parameterNode.heatmapChannel)
        self.ui.channelComboBox.setToolTip(channelMeaning(self.parameterNode.heatmapChannel))
        if review != self._shownReview:
            self._shownReview = review
            self._place, self._told = None, ""
            self._showReview(review)
        self._showCases()
        if self.parameterNode.suspectsFile != self._openedQueue:
            self._openedQueue = self.parameterNode.suspectsFile
            self._queue.open(self._openedQueue)
        self._showState(review)
        if self.widget.isVisible():
            self.showImage()
            self.applyHeatmap()

    def showImage(self) -> None:
        """Show the volume that the reviewed segmentation was made from, once; what the user shows then stays."""
        if self.segmentation is None or self.segmentation is self._shownNode:
            return
        self._shownNode = self.segmentation
        for volumeNode in results.inputsOf(self.segmentation)[:1]:
            application.showVolume(volumeNode)
        if self.heatmap is None:
            hideHeatmap(slicer.mrmlScene)  # that of another case

    def applyHeatmap(self) -> None:
        """Show, hide and style the heatmap as the controls say, whenever they say something else."""
        heatmap, parameters = self.heatmap, self.parameterNode
        names = ("heatmapVisible", "heatmapThreshold", "heatmapOpacity", "heatmapLegend")
        wanted = (heatmap, *(getattr(parameters, name) for name in names))
        if heatmap is None or wanted == self._shownHeatmap:
            return
        self._shownHeatmap = wanted
        if parameters.heatmapVisible:
            setHeatmapThreshold(heatmap, parameters.heatmapThreshold)
            showHeatmap(
                heatmap,
                opacity=parameters.heatmapOpacity,
                legend=parameters.heatmapLegend,
            )
            setHeatmapOpacity(heatmap, parameters.heatmapOpacity)
        else:
            hideHeatmap(slicer.mrmlScene)

    def onChannelChosen(self, _index: int) -> None:
        """Another measure of difficulty was selected."""
        if self.parameterNode is not None:
            self.parameterNode.heatmapChannel = self.chosen(self.ui.channelComboBox)

    def onClassChosen(self, _index: int) -> None:
        """List the slices of another class."""
        if self._shownReview is not None:
            self._listSlices(self._shownReview)

    def onSliceClicked(self, row: int, _column: int) -> None:
        """Go to the slice of a row."""
        key = keyOfRow(self.ui.slicesTable, row)
        if 0 <= key < len(self._slices):
            self._place = self._slices[key]
            application.jumpTo(self._place.position)
            self._showState(self._shownReview)

    def onPrevious(self, _checked: bool = False) -> None:
        """Go to the slice above."""
        self._step(-1)

    def onNext(self, _checked: bool = False) -> None:
        """Go to the slice below."""
        self._step(1)

    def onCaseClicked(self, row: int, _column: int) -> None:
        """Review another case."""
        key = keyOfRow(self.ui.casesTable, row)
        if self.parameterNode is not None and 0 <= key < len(self._cases):
            self.parameterNode.reviewSegmentation = self._cases[key]

    def onCompare(self, _checked: bool = False) -> None:
        """Compute T1 to T4 against the reference."""
        node, reference, card = self.segmentation, self.parameterNode.referenceSegmentation, self.card
        if card is None or reference is None:
            return
        mapping, device = self._reference.mapping, self.parameterNode.device
        job = AuditJob(node, reference, model=card.name, task=card.task, mapping=mapping, device=device)
        self.start("audit", job, _("Comparing with the reference"))

    @property
    def _finding(self) -> FindState:
        """What decides whether suspicious labels can be looked for."""
        return FindState(
            missing=self.session.missing,
            path=str(self.ui.suspectsPathLineEdit.currentPath or ""),
            modelKnown=self.session.model(self.parameterNode.modelName) is not None,
            whyNoModels=self.session.whyNoModels(),
            busy=self.session.busy,
        )

    def onSuspectsPathChanged(self, _path: str) -> None:
        """Other labelled cases, or another result, were chosen."""
        if self.parameterNode is not None:
            self._showState(self._shownReview)

    def onFind(self, _checked: bool = False) -> None:
        """Look for suspicious labels, or open what an earlier search has found."""
        finding = self._finding
        self.ui.suspectsPathLineEdit.addCurrentPathToHistory()
        if finding.isResult:
            self._openQueue(finding.path)
            return
        job = SuspectsJob(finding.path, self.parameterNode.modelName, self.parameterNode.device)
        self.start("suspects", job, _("Looking for suspicious labels"))

    def _openQueue(self, path: str) -> None:
        self._openedQueue = path
        self._queue.open(path)

    def _keepQueue(self, path: str) -> None:
        """The scene remembers which queue is worked off."""
        if self.parameterNode is not None and self.parameterNode.suspectsFile != path:
            self._openedQueue = path
            self.parameterNode.suspectsFile = path

    def load(self, job: AuditJob | SuspectsJob, state: JobState) -> None:
        """Show the maps of the comparison, or the suspicious labels."""
        if isinstance(job, SuspectsJob):
            self._openQueue(str(state.result["suspects"]))
            return
        channels = job.load(state.artifacts)
        if channels and self.parameterNode is not None:
            self.parameterNode.heatmapChannel = AUDITED[-1] if AUDITED[-1] in channels else channels[0]
            state.message = _("The four terms and their sum can now be chosen as channel of the heatmap.")

    def onEdit(self, _checked: bool = False) -> None:
        """Open the Segment Editor on the class of the chosen slice."""
        node = self.segmentation
        if node is None:
            return
        segmentId = segmentIDOfName(node, self._place.className) if self._place is not None else ""
        background = next(iter(results.inputsOf(node)), None)
        application.openSegmentEditor(node, background, segmentId)
        if self._place is not None:
            application.jumpTo(self._place.position)

    def onExportPathChanged(self, _path: str) -> None:
        """Another folder was chosen."""
        self._showState(self._shownReview)

    def onExport(self, _checked: bool = False) -> None:
        """Write what is ticked into the folder."""
        folder = Path(self.ui.exportPathLineEdit.currentPath)
        try:
            written = exportReview(
                self.segmentation,
                folder,
                heatmaps=self.ui.exportHeatmapsCheckBox.checked,
                tables=self.ui.exportTablesCheckBox.checked,
            )
            if self.ui.exportScreenshotCheckBox.checked:
                application.saveScreenshot(folder / f"{self.segmentation.GetName()}.png")
        except (OSError, ForgettableSegError) as error:
            self._tell(_("The files could not be written: {error}").format(error=error))
            return
        self.ui.exportPathLineEdit.addCurrentPathToHistory()
        count = len(written) + bool(self.ui.exportScreenshotCheckBox.checked)
        self._tell(_("{count} files were written to {folder}.").format(count=count, folder=folder))

    def _tell(self, text: str) -> None:
        """Say something until another review is shown or another job is started."""
        self._state, self._told = None, text
        self._showState(self._shownReview)

    def _step(self, step: int) -> None:
        table = self.ui.slicesTable
        row = neighbour(table.currentRow(), step, table.rowCount)
        if row >= 0:
            table.setCurrentCell(row, 0)
            self.onSliceClicked(row, 0)

    def _showReview(self, review: Review | None) -> None:
        names = [] if review is None else list(dict.fromkeys(each.className for each in review.slices))
        choices = [("", _("All classes")), *((name, name) for name in names)]
        self.choose(self.ui.classComboBox, choices, "")
        fillTable(self.ui.classesTable, [] if review is None else classRows(review.classes))
        self._listSlices(review)

    def _listSlices(self, review: Review | None) -> None:
        className = self.chosen(self.ui.classComboBox)
        self._slices = [] if review is None else slicesOfClass(review, className)
        fillTable(self.ui.slicesTable, sliceRows(self._slices))

    def _showCases(self) -> None:
        reviewed = results.reviewedSegmentations(slicer.mrmlScene)
        reviewed.sort(key=lambda each: -(each[1].percentile or 0.0))
        self._cases = [node for node, _review in reviewed]
        fillTable(self.ui.casesTable, caseRows([(node.GetName(), review) for node, review in reviewed]))

    def _showState(self, review: Review | None) -> None:
        node, parameters = self.segmentation, self.parameterNode
        reference, card = parameters.referenceSegmentation, self.card
        same = node is not None and node is reference
        self._reference.show(None if same else reference, None if card is None else card.task)
        valid, reason = CompareState(
            missing=self.session.missing,
            hasResult=node is not None and bool(results.inputsOf(node)),
            hasReference=reference is not None,
            modelKnown=card is not None,
            whyNoModels=self.session.whyNoModels(),
            same=same,
            matched=self._reference.isMatched,
            busy=self.session.busy,
        ).isValid()
        self.ui.compareButton.setEnabled(valid)
        tip = _("Compute the four difficulty terms T1 to T4 and their sum against the reference.")
        self.ui.compareButton.setToolTip(tip if valid else reason)
        canFind, why = self._finding.isValid()
        self.ui.findButton.setEnabled(canFind)
        find = _("Let the model judge the labels of these cases, or open the result of an earlier search.")
        self.ui.findButton.setToolTip(find if canFind else why)
        self._queue.showState()
        self.ui.editButton.setEnabled(node is not None)
        self.ui.exportButton.setEnabled(node is not None and bool(self.ui.exportPathLineEdit.currentPath))
        self.ui.previousButton.setEnabled(bool(self._slices))
        self.ui.nextButton.setEnabled(bool(self._slices))
        self.showOwnJob(self._told or caseSentence(review), startable=valid)
