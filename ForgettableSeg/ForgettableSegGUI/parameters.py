"""All state of the module, kept in the scene."""

from typing import Annotated

from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
)
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

PRESETS = ["recommended", "paper"]
SWITCH = ["preset", "on", "off"]
UNITS = ["minutes", "epochs"]
MODALITIES = ["MR", "CT", "other"]
DIMENSIONS = ["Automatic", "2D", "3D"]
ADMISSIONS = ["preset", "band", "topk", "forgetting"]
REPLACEMENTS = ["preset", "random", "fifo", "score"]
AUX_LOSSES = ["preset", "none", "scdl"]
GUIDANCES = ["preset", "text", "psa", "none"]
MEMORIES = ["preset", "none", "class"]


@parameterNodeWrapper
class ForgettableSegParameterNode:
    """State of all panels; saved with the scene and restored from it.

    Numbers of the advanced training settings are 0 where the preset's value holds. Choices of models and devices are
    plain text, for what there is to choose from depends on the computer. `trainingCases` and `classMapping` are JSON.
    """

    # Segment
    modelName: str
    inputVolume1: vtkMRMLScalarVolumeNode
    inputVolume2: vtkMRMLScalarVolumeNode
    inputVolume3: vtkMRMLScalarVolumeNode
    inputVolume4: vtkMRMLScalarVolumeNode
    regionOfInterest: vtkMRMLMarkupsROINode
    outputSegmentation: vtkMRMLSegmentationNode
    device: str = "auto"
    computeHeatmap: bool = True

    # Review
    reviewSegmentation: vtkMRMLSegmentationNode
    referenceSegmentation: vtkMRMLSegmentationNode
    heatmapChannel: str = "confidence"
    heatmapVisible: bool = True
    heatmapLegend: bool = True
    heatmapThreshold: Annotated[float, WithinRange(0.0, 100.0)] = 80.0
    heatmapOpacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
    suspectsFile: str

    # Fine-tune
    startModel: str
    newModelName: str
    preset: Annotated[str, Choice(PRESETS)] = "recommended"
    trainingLength: Annotated[int, WithinRange(1, 100000)] = 10
    trainingUnit: Annotated[str, Choice(UNITS)] = "minutes"
    trainingDevice: str = "auto"
    modality: Annotated[str, Choice(MODALITIES)] = "MR"
    dimension: Annotated[str, Choice(DIMENSIONS)] = "Automatic"
    textGuidance: Annotated[str, Choice(SWITCH)] = "preset"
    prototypeScores: Annotated[str, Choice(SWITCH)] = "preset"
    sampleBank: Annotated[str, Choice(SWITCH)] = "preset"
    rho: Annotated[float, WithinRange(0.0, 1.0)] = 0.0
    bankBatches: Annotated[int, WithinRange(0, 1000)] = 0
    replayEvery: Annotated[int, WithinRange(0, 1000)] = 0
    admission: Annotated[str, Choice(ADMISSIONS)] = "preset"
    replacement: Annotated[str, Choice(REPLACEMENTS)] = "preset"
    auxLoss: Annotated[str, Choice(AUX_LOSSES)] = "preset"
    guidance: Annotated[str, Choice(GUIDANCES)] = "preset"
    memory: Annotated[str, Choice(MEMORIES)] = "preset"
    learningRate: Annotated[float, WithinRange(0.0, 1.0)] = 0.0
    patchSize: Annotated[int, WithinRange(0, 512)] = 0
    caseVolumes: list[vtkMRMLScalarVolumeNode]
    caseSegmentations: list[vtkMRMLSegmentationNode]
    trainingCases: str = "[]"
    classMapping: str = "{}"
    newClasses: str = "[]"
