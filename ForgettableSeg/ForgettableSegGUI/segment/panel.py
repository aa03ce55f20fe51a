"""The Segment panel: a model, its volumes, Apply, and what comes out."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from ForgettableSegMRML.heatmaps import hideHeatmap, setHeatmapThreshold, showHeatmap
from ForgettableSegMRML.segmentations import centerOfSegments
from ForgettableSegMRML.volumes import fitROI

from ForgettableSegLib.errors import ErrorCode

from .. import application, results
from ..case_files import CASE
from ..channels import MAX_CHANNELS, channelLabel, visibleChannels
from ..i18n import tr as _
from ..job_panel import JobPanel
from ..job_state import JobState
from ..model_cards import ModelCard, cardDetails, cardSummary
from ..panel import Context
from ..table import fillTable, fitColumns
from .facts import volumeFacts, volumesOfScene
from .job import SegmentationJob, SegmentationResult
from .model import (
    SegmentState,
    ownRemarks,
    resultSentence,
    suggestVolumes,
    volumeFactsText,
)


class SegmentPanel(JobPanel):
    """Segments one case with a model, in the background."""

    uiName = "SegmentPanel"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        fitColumns(self.ui.promptsTable, 0, 1)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self.onModelChosen)
        self.ui.deviceComboBox.connect("currentIndexChanged(int)", self.onDeviceChosen)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.regionButton.connect("clicked(bool)", self.onChooseRegion)
        self.ui.anywayButton.connect("clicked(bool)", self.onAnyway)
        self.ui.volumesButton.connect("clicked(bool)", self.onShowVolumes)
        self.ui.reviewButton.connect("clicked(bool)", self.onReview)
        self.ui.channelSelector1.connect("nodeAdded(vtkMRMLNode*)", self.onVolumeAdded)
        self.ui.roiSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onRegionAdded)
        self.session.devicesChanged.connect(self.refresh)

    @property
    def card(self) -> ModelCard | None:
        """The chosen model."""
        return None if self.parameterNode is None else self.session.model(self.parameterNode.modelName)

    def forgetScene(self) -> None:
        """The scene is being closed, and the result with it."""
        super().forgetScene()
        self._showResult(None)

    def refresh(self) -> None:
        """Show models, devices and volumes, and whether Apply can be pressed."""
        if self.parameterNode is None:
            return
        models = [(card.name, card.title) for card in self.session.models]
        if models and not self.parameterNode.modelName:
            self.parameterNode.modelName = models[0][0]
        self.choose(self.ui.modelComboBox, models, self.parameterNode.modelName)
        self.choose(self.ui.deviceComboBox, self.session.devices(), self.parameterNode.device)
        self._showCard()
        self._showResult(self.parameterNode.outputSegmentation)
        self._showState()

    def onEnter(self) -> None:
        """Fill what the scene suggests."""
        if self.parameterNode is not None:
            self.suggest()
            self.refresh()

    def suggest(self) -> None:
        """Choose volumes for the channels that have none yet."""
        card = self.card
        if card is None or any(self._channelNodes()):
            return
        for channel, volume in enumerate(suggestVolumes(card, volumesOfScene(slicer.mrmlScene))[:MAX_CHANNELS], 1):
            if volume is not None:
                self.parameterNode.setValue(f"inputVolume{channel}", slicer.mrmlScene.GetNodeByID(volume.nodeId))

    def onVolumeAdded(self, _node: Any) -> None:
        """A volume came into the scene: once it is read, it may be what is to be segmented."""
        qt.QTimer.singleShot(0, self.onEnter)

    def onRegionAdded(self, node: slicer.vtkMRMLMarkupsROINode) -> None:
        """The user made a region in the selector."""
        volumeNode = self.parameterNode.inputVolume1
        if volumeNode is not None and volumeNode.GetImageData() is not None:
            fitROI(node, volumeNode)

    def onModelChosen(self, _index: int) -> None:
        """Another model was selected."""
        if self.parameterNode is not None:
            self.parameterNode.modelName = self.chosen(self.ui.modelComboBox)
            self.suggest()
            self.refresh()

    def onDeviceChosen(self, _index: int) -> None:
        """Another device was selected."""
        if self.parameterNode is not None:
            self.parameterNode.device = self.chosen(self.ui.deviceComboBox)

    def onApply(self, _checked: bool = False) -> None:
        """Start the segmentation."""
        self._apply(anyway=False)

    def onAnyway(self, _checked: bool = False) -> None:
        """Segment a volume that was refused for its size."""
        self._apply(anyway=True)

    def onChooseRegion(self, _checked: bool = False) -> None:
        """Lay a region as large as what the model has learnt into the middle of the volume, to be moved."""
        volumeNode, card = self.parameterNode.inputVolume1, self.card
        if volumeNode is None or card is None:
            return
        region = self.parameterNode.regionOfInterest
        if region is None:
            region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", _("Region"))
        fitROI(region, volumeNode, card.learntSize)
        self.parameterNode.regionOfInterest = region

    def _apply(self, *, anyway: bool) -> None:
        valid, reason = self._segmentState().isValid()
        if not valid:
            self.say(self.ui.statusLabel, reason)
            return
        parameters, card = self.parameterNode, self.card
        volumeNodes = self._channelNodes()[: len(card.channels)]
        output = results.outputFor(parameters.outputSegmentation, volumeNodes)
        if output is not None and (results.isCorrected(output) or output in parameters.caseSegmentations):
            question = _("Replace the segments of {name}? What was drawn or corrected in it will be lost.")
            if not application.ask(question.format(name=output.GetName())):
                return
        job = SegmentationJob(
            volumeNodes,
            model=card.name,
            task=card.task,
            outputNode=output,
            roiNode=parameters.regionOfInterest,
            device=parameters.device,
            heatmap=parameters.computeHeatmap,
            anyway=anyway,
        )
        self.start("segment", job, _("Segmenting"))

    def load(self, job: SegmentationJob, state: JobState) -> None:
        """Show the segmentation, or why there is none."""
        if any(each["kind"] == "segmentation" for each in state.artifacts):
            result = job.load(state.artifacts, state.problems)
            state.problems.clear()  # they are kept with the result
            self._display(result, state)
        elif state.problems:
            state.message = " ".join(ownRemarks(state.problems, CASE))
            state.problems.clear()

    def onShowVolumes(self, _checked: bool = False) -> None:
        """Show the table of volumes."""
        table = None if self.parameterNode is None else results.tableOf(self.parameterNode.outputSegmentation)
        if table is not None:
            application.showTable(table)

    def onReview(self, _checked: bool = False) -> None:
        """Go through the hardest slices."""
        self.context.openSection("review")

    def _display(self, result: SegmentationResult, state: JobState) -> None:
        node = result.segmentationNode
        state.message = resultSentence(node.GetName(), result.seconds)
        parameters = self.parameterNode
        if parameters is not None:
            parameters.outputSegmentation = node
            parameters.reviewSegmentation = node
        if application.showVolume(results.inputsOf(node)[0]):
            centre = centerOfSegments(node)
            if centre is not None:
                application.jumpTo(centre)
        heatmap = result.heatmapNodes.get("confidence")
        if heatmap is None:
            hideHeatmap(slicer.mrmlScene)  # that of another case
        elif parameters is None:
            showHeatmap(heatmap)
        elif parameters.heatmapVisible:
            setHeatmapThreshold(heatmap, parameters.heatmapThreshold)
            showHeatmap(heatmap, opacity=parameters.heatmapOpacity, legend=parameters.heatmapLegend)

    def _showResult(self, node: slicer.vtkMRMLSegmentationNode | None) -> None:
        """Offer what can be done with a result, be it of this session or of the scene that was loaded."""
        made = node is not None and self._job is None and bool(results.inputsOf(node))
        self.ui.resultFrame.setVisible(made)
        self.ui.show3DButton.setSegmentationNode(node if made else None)
        self.ui.volumesButton.setEnabled(made and results.tableOf(node) is not None)
        self.ui.reviewButton.setEnabled(made and bool(results.heatmapsOf(node)))
        self.say(self.ui.remarksLabel, "\n".join(results.remarksOf(node)) if made else "")

    def _channelNodes(self) -> list[slicer.vtkMRMLScalarVolumeNode | None]:
        return [self.parameterNode.getValue(f"inputVolume{channel}") for channel in range(1, MAX_CHANNELS + 1)]

    def _segmentState(self) -> SegmentState:
        card = self.card
        nodes = self._channelNodes()[: visibleChannels(card)]
        return SegmentState(
            missing=self.session.missing,
            card=card,
            whyNoModel=self.session.whyNoModel(self.parameterNode.modelName),
            volumes=tuple(volumeFacts(node) for node in nodes),
            busy=self.session.busy,
        )

    def _showCard(self) -> None:
        card = self.card
        self.say(self.ui.modelCardLabel, "" if card is None else cardSummary(card))
        self.ui.modelCardLabel.setToolTip("" if card is None else cardDetails(card))
        rows = [] if card is None else [
            [each.name, prompt] for each, prompt in zip(card.task.classes, [*card.prompts, *[""] * 99], strict=False)
        ]  # fmt: skip
        fillTable(self.ui.promptsTable, rows)
        for channel in range(1, MAX_CHANNELS + 1):
            visible = channel <= visibleChannels(card)
            label, selector = getattr(self.ui, f"channelLabel{channel}"), getattr(self.ui, f"channelSelector{channel}")
            label.setText(channelLabel(card, channel - 1))
            label.setVisible(visible)
            selector.setVisible(visible)
            facts = volumeFacts(self.parameterNode.getValue(f"inputVolume{channel}"))
            hint = _("The volume to segment. Of a sequence, the current frame is used.")
            selector.setToolTip("<br>".join(filter(None, [hint, volumeFactsText(facts)])))

    def _showState(self) -> None:
        valid, reason = self._segmentState().isValid()
        self.ui.applyButton.setEnabled(valid)
        self.ui.applyButton.setToolTip(_("Segment the volume with the chosen model.") if valid else reason)
        self.showOwnJob(reason, startable=valid)
        own = self._state is not None and self._state is self.session.job and not self._state.running
        self.ui.refusedFrame.setVisible(valid and own and ErrorCode.FIELD_OF_VIEW in self._state.codes)
