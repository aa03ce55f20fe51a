"""Sample data that need no network: a real head that is shipped, and synthetic cases for the self test."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import slicer
import vtk

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.resources import resources_dir

from .i18n import tr as _

CATEGORY = "ForgettableSeg"
SAMPLE = "MNI152 T1 brain"
_FILE = "MNI152_T1_1mm_brain.nrrd"  # made by Testing/make_sample_data.py
_SHA256 = "e8b401498e040f73baaf2f87be49c59b46df18f2f0e3ddc8e154a1e104dcd98a"
CLASSES = ("ball", "shell")
_SIZE = (24, 40, 40)  # z, y, x


def registerSampleData() -> None:
    """Add our sample to the Sample Data module: it is a file of ours, so that nothing is downloaded."""
    import SampleData  # a module of Slicer, loaded after this one

    icon = resources_dir() / "Icons" / "ForgettableSeg.png"
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE,
        # Sample Data wants a file for each node, although nothing is downloaded.
        uris="",
        fileNames=_FILE,
        nodeNames=SAMPLE,
        customDownloader=loadSample,
        thumbnailFileName=str(icon),
    )


def loadSample(_source: Any = None) -> list[Any]:
    """Load the head that is shipped and show it; returns its volume node.

    Raises:
        ForgettableSegError: if the file is missing or damaged.
    """
    path = resources_dir() / "SampleData" / _FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        text = _("The sample {file} is missing or damaged.").format(file=path)
        raise ForgettableSegError(ErrorCode.FILE_UNREADABLE, text, hint=_("Install the extension again."))
    volumeNode = slicer.util.loadVolume(str(path), {"name": SAMPLE})
    slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
    return [volumeNode]


def syntheticCase(scene: slicer.vtkMRMLScene, seed: int) -> tuple[Any, Any]:
    """Make a volume and its segmentation: a bright ball in a darker shell, in noise, somewhere else for each seed.

    Args:
        scene: receives the nodes.
        seed: number of the case; the same one gives the same case.
    """
    image, labels = syntheticArrays(seed)
    volumeNode = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"Synthetic{seed + 1}")
    volumeNode.SetSpacing(1.0, 1.0, 2.0)
    volumeNode.SetOrigin(-20.0, -20.0, -24.0)
    _setArray(volumeNode, image)
    volumeNode.CreateDefaultDisplayNodes()
    labelNode = slicer.vtkMRMLLabelMapVolumeNode()
    labelNode.CopyOrientation(volumeNode)
    _setArray(labelNode, labels)
    segmentationNode = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"Synthetic{seed + 1} labels")
    segmentationNode.CreateDefaultDisplayNodes()
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    for value, name in enumerate(CLASSES, 1):
        _addSegment(segmentationNode, name, labelNode, labels == value)
    return volumeNode, segmentationNode


def syntheticArrays(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image (float32) and labels (uint8), both [z, y, x]."""
    generator = np.random.default_rng(seed)
    centre = np.array([size / 2 for size in _SIZE]) + generator.uniform(-3, 3, 3)
    axes = np.meshgrid(*[np.arange(size) for size in _SIZE], indexing="ij")
    distance = np.sqrt(((axes[0] - centre[0]) * 2) ** 2 + (axes[1] - centre[1]) ** 2 + (axes[2] - centre[2]) ** 2)
    labels = np.zeros(_SIZE, dtype=np.uint8)
    labels[distance < 12] = 2
    labels[distance < 7] = 1
    image = np.array([100, 400, 250], dtype=np.float32)[labels] + generator.normal(0, 20, _SIZE).astype(np.float32)
    return image, labels


def _setArray(volumeNode: slicer.vtkMRMLVolumeNode, array: np.ndarray) -> None:
    from vtk.util.numpy_support import numpy_to_vtk

    image = vtk.vtkImageData()
    image.SetDimensions(tuple(reversed(array.shape)))
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    volumeNode.SetAndObserveImageData(image)


def _addSegment(
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    name: str,
    labelNode: slicer.vtkMRMLLabelMapVolumeNode,
    mask: np.ndarray,
) -> None:
    from ForgettableSegMRML.segmentations import orientedImage

    single = slicer.vtkMRMLLabelMapVolumeNode()
    single.CopyOrientation(labelNode)
    _setArray(single, mask.astype(np.uint8))
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.AddRepresentation("Binary labelmap", orientedImage(single))
    segmentationNode.GetSegmentation().AddSegment(segment)
