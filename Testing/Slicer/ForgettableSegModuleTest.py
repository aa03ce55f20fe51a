"""The module in the application: its sections, its state in the scene, its logic."""

from __future__ import annotations

import os
import unittest

import slicer

SECTIONS = ("segment", "review", "fineTune", "models", "setup")


class ForgettableSegModuleTest(unittest.TestCase):
    """Runs in Slicer with the module loaded; downloads nothing and starts no training."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        slicer.util.selectModule("ForgettableSeg")
        self.module = slicer.util.getModuleWidget("ForgettableSeg")

    def test_onlyOneSectionIsOpen(self) -> None:
        for name in SECTIONS:
            self.module.view.openSection(name)
            closed = {other: section.collapsed for other, section in self.module.view.sections.items()}
            assert closed == {other: other != name for other in SECTIONS}

    def test_stateSurvivesSaveAndLoad(self) -> None:
        from ForgettableSegGUI.samples import syntheticCase

        volumeNode, segmentationNode = syntheticCase(slicer.mrmlScene, 0)
        state = self.module.logic.getParameterNode()
        state.inputVolume1 = volumeNode
        state.heatmapThreshold = 42.0
        state.caseVolumes = [volumeNode]
        state.caseSegmentations = [segmentationNode]
        path = os.path.join(slicer.app.temporaryPath, "ForgettableSegModuleTest.mrb")
        assert slicer.util.saveScene(path)
        slicer.mrmlScene.Clear()
        assert self.module.logic.getParameterNode().inputVolume1 is None
        assert slicer.util.loadScene(path)
        state = self.module.logic.getParameterNode()
        assert state.inputVolume1.GetName() == "Synthetic1"
        assert state.heatmapThreshold == 42.0
        assert [node.GetName() for node in state.caseSegmentations] == ["Synthetic1 labels"]

    def test_closingTheSceneWhileTheModuleIsOpen(self) -> None:
        slicer.mrmlScene.Clear()
        assert self.module.view.context.parameterNode is not None

    def test_reloading(self) -> None:
        self.module.onReload()
        self.module = slicer.util.getModuleWidget("ForgettableSeg")
        assert self.module.view is not None

    def test_sampleDataIsRegistered(self) -> None:
        assert "ForgettableSeg" in slicer.modules.sampleDataSources
