"""A scene with the logics that nodes need, for work without the application: batch, offscreen pictures, tests."""

from __future__ import annotations

import slicer
import vtk


class HeadlessSession:
    """A scene of its own, with the logics that register node classes, colour tables and segment converters.

    Attributes:
        scene: the scene.
        applicationLogic: the application logic of that scene.
    """

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.applicationLogic = slicer.vtkSlicerApplicationLogic()
        self.applicationLogic.SetMRMLScene(self.scene)
        self.applicationLogic.SetSliceLogics(vtk.vtkCollection())
        self.applicationLogic.SetViewLogics(vtk.vtkCollection())
        self.applicationLogic.GetColorLogic().SetMRMLScene(self.scene)
        self.applicationLogic.GetColorLogic().AddDefaultColorNodes()
        self.scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
        self._logics = {
            "Markups": slicer.vtkSlicerMarkupsLogic(),
            "Segmentations": slicer.vtkSlicerSegmentationsModuleLogic(),
            "Volumes": slicer.vtkSlicerVolumesLogic(),
        }
        for name, logic in self._logics.items():
            logic.SetMRMLApplicationLogic(self.applicationLogic)
            logic.SetMRMLScene(self.scene)
            self.applicationLogic.SetModuleLogic(name, logic)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
