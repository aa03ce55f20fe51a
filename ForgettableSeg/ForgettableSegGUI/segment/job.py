"""One segmentation: volumes to files, a request to the worker, its files to nodes. No Qt: scripts use it too."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
from ForgettableSegMRML.segmentations import loadLabelMap, readTask
from ForgettableSegMRML.tables import fillVolumesTable
from ForgettableSegMRML.volumes import indexBoxOfROI

from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.jobs.requests import make_request

from .. import results
from ..case_files import CASE, loadHeatmaps, requireInScene, writeImages
from ..i18n import tr as _
from ..reviews import SEGMENTED
from .model import ownRemarks, remarksByClass


@dataclass(frozen=True)
class SegmentationResult:
    """What a segmentation leaves in the scene.

    Args:
        segmentationNode: the segmentation.
        heatmapNodes: estimated difficulty by channel; empty where no heatmap was asked for.
        tableNode: the volumes of the segments, in ml.
        seconds: how long it took.
        remarks: what is to be said of it, a sentence each.
    """

    segmentationNode: slicer.vtkMRMLSegmentationNode
    heatmapNodes: Mapping[str, slicer.vtkMRMLScalarVolumeNode] = field(default_factory=dict)
    tableNode: slicer.vtkMRMLTableNode | None = None
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()


class SegmentationJob:
    """A segmentation under way.

    Args:
        volumeNodes: one for each channel of the model.
        model: name or path of the model.
        task: what the model segments.
        outputNode: segmentation that receives the result; a new one is made where it is None.
        roiNode: region outside which nothing is segmented.
        device: where the model runs.
        heatmap: whether the estimated difficulty is computed too.
        anyway: also segment a volume that is far larger than those that the model has learnt.

    Raises:
        ForgettableSegError: if a volume cannot be used or written.
    """

    def __init__(
        self,
        volumeNodes: Sequence[slicer.vtkMRMLVolumeNode],
        *,
        model: str,
        task: Task,
        outputNode: slicer.vtkMRMLSegmentationNode | None = None,
        roiNode: slicer.vtkMRMLMarkupsROINode | None = None,
        device: str = "auto",
        heatmap: bool = True,
        anyway: bool = False,
    ) -> None:
        self.volumeNodes = list(volumeNodes)
        self.model, self.task, self.heatmap, self.anyway = model, task, heatmap, anyway
        self.outputNode, self.roiNode, self.device = outputNode, roiNode, device
        self._started = time.monotonic()
        self._folder: Path | None = None

    def request(self) -> dict[str, Any]:
        """Write the volumes to files and return the arguments of the job."""
        region = None
        if self.roiNode is not None:
            region = [list(corner) for corner in indexBoxOfROI(self.roiNode, self.volumeNodes[0])]
        self._folder = Path(tempfile.mkdtemp(prefix="forgettableseg-"))
        arguments = {
            "model": self.model,
            "cases": [{"id": CASE, "images": writeImages(self.volumeNodes, self._folder)}],
            "output": str(self._folder / "output"),
            "device": self.device or "auto",
            "heatmap": self.heatmap,
            "region": region,
            "anyway": self.anyway,
        }
        return make_request("segment", arguments).to_dict()

    def load(self, artifacts: Sequence[Mapping[str, Any]], problems: Sequence[str] = ()) -> SegmentationResult:
        """Bring the files that the worker wrote into the scene.

        Args:
            artifacts: the artifact events of the job.
            problems: what the worker said of the case.

        Raises:
            ForgettableSegError: if the volume has left the scene, or a file cannot be read.
        """
        paths = {artifact["kind"]: artifact["path"] for artifact in artifacts if artifact.get("case") in (CASE, None)}
        reference = self.volumeNodes[0]
        requireInScene(reference)
        node = self.outputNode
        if node is None or node.GetScene() is None:
            scene = reference.GetScene()
            name = _("{volume} segmentation").format(volume=reference.GetName())
            node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GetUniqueNameByString(name))
        task = readTask(paths["task"]) if "task" in paths else self.task
        loadLabelMap(node, paths["segmentation"], task.classes, referenceVolume=reference)
        results.setInputs(node, self.volumeNodes, self.model)
        results.setContent(node)
        results.forgetMaps(node, keep=paths)
        remarks = ownRemarks(problems, CASE)
        results.setRemarks(node, remarks)
        heatmaps, table = self._loadReview(node, paths, task, remarks)
        self.discard()
        return SegmentationResult(node, heatmaps, table, time.monotonic() - self._started, tuple(remarks))

    def discard(self) -> None:
        """Remove the temporary files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _loadReview(
        self, node: slicer.vtkMRMLSegmentationNode, paths: Mapping[str, str], task: Task, remarks: Sequence[str]
    ) -> tuple[dict[str, slicer.vtkMRMLScalarVolumeNode], slicer.vtkMRMLTableNode | None]:
        heatmaps = loadHeatmaps(node, self.volumeNodes[0], paths, SEGMENTED)
        if "review" in paths:
            content = json.loads(Path(paths["review"]).read_text(encoding="utf-8"))
            content["case"] = node.GetName()
            results.setReview(node, content)
        elif "volumes" in paths:
            content = _volumesOfSummary(Path(paths["volumes"]), node.GetName(), task)
        else:
            return heatmaps, None
        return heatmaps, _volumesTable(node, content, remarks)


def _volumesOfSummary(path: Path, case: str, task: Task) -> dict[str, Any]:
    """What a review says of the volumes, from the summary of a job without a heatmap."""
    row = json.loads(path.read_text(encoding="utf-8"))["cases"][0]
    volumes = [(each.name, row.get(f"{each.name} ml")) for each in task.classes]
    return {"case": case, "classes": [{"name": name, "volume_ml": ml} for name, ml in volumes if ml is not None]}


def _volumesTable(
    segmentationNode: slicer.vtkMRMLSegmentationNode, review: Mapping[str, Any], remarks: Sequence[str]
) -> slicer.vtkMRMLTableNode:
    table = results.tableOf(segmentationNode)
    if table is None:
        scene = segmentationNode.GetScene()
        name = _("{segmentation} volumes").format(segmentation=segmentationNode.GetName())
        table = scene.AddNewNodeByClass("vtkMRMLTableNode", scene.GetUniqueNameByString(name))
        results.setTable(segmentationNode, table)
    fillVolumesTable(table, [review], remarksByClass(remarks, [each["name"] for each in review["classes"]]))
    return table
