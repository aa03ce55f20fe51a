"""Comparing a result with a reference segmentation: nodes to files, a request, its files to nodes. No Qt."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
from ForgettableSegMRML.labelmaps import writeLabelMap

from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.requests import make_request

from .. import results
from ..case_files import CASE, loadHeatmaps, requireInScene, writeImages
from ..i18n import tr as _
from ..reviews import AUDITED
from ..segment_classes import valuesBySegment


class AuditJob:
    """A comparison under way: T1 to T4 of the training, with the reference in the place of the labels.

    Args:
        segmentationNode: a result that was made here.
        referenceNode: the segmentation that is taken for right.
        model: name of the model.
        task: what the model segments.
        mapping: class by name of a segment of the reference.
        device: where the model runs.
    """

    def __init__(
        self,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        referenceNode: slicer.vtkMRMLSegmentationNode,
        *,
        model: str,
        task: Task,
        mapping: Mapping[str, str],
        device: str = "auto",
    ) -> None:
        self.segmentationNode, self.referenceNode = segmentationNode, referenceNode
        self.model, self.task, self.mapping, self.device = model, task, mapping, device
        self.volumeNodes = results.inputsOf(segmentationNode)
        self._folder: Path | None = None

    def request(self) -> dict[str, Any]:
        """Write volumes and reference to files and return the arguments of the job.

        Raises:
            ForgettableSegError: if the input volumes are gone, or segments of two classes overlap.
        """
        if len(self.volumeNodes) != len(self.task.channels):
            text = _("The volumes that this segmentation was made from are not all in the scene any more.")
            raise ForgettableSegError(ErrorCode.CASE_INVALID, text)
        values = valuesBySegment(self.referenceNode, self.mapping, self.task)
        self._folder = Path(tempfile.mkdtemp(prefix="forgettableseg-"))
        images = writeImages(self.volumeNodes, self._folder)
        label = self._folder / f"{CASE}_reference.nrrd"
        writeLabelMap(self.referenceNode, self.volumeNodes[0], values, label)
        arguments = {
            "model": self.model,
            "cases": [{"id": CASE, "images": images, "label": str(label)}],
            "output": str(self._folder / "output"),
            "device": self.device or "auto",
        }
        return make_request("audit", arguments).to_dict()

    def load(self, artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
        """Bring the maps into the scene; returns the channels that there are now.

        Raises:
            ForgettableSegError: if the segmentation or its volume has left the scene, or a file cannot be read.
        """
        for node in (self.segmentationNode, self.volumeNodes[0]):
            requireInScene(node)
        paths = {artifact["kind"]: artifact["path"] for artifact in artifacts if artifact.get("case") in (CASE, None)}
        nodes = loadHeatmaps(self.segmentationNode, self.volumeNodes[0], paths, AUDITED)
        if "review" in paths:
            content = json.loads(Path(paths["review"]).read_text(encoding="utf-8"))
            content["case"] = self.segmentationNode.GetName()
            results.setReview(self.segmentationNode, content)
        self.discard()
        return list(nodes)

    def discard(self) -> None:
        """Remove the temporary files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
