"""ForgettableSeg: segment, see what is hard, fix it, and fine-tune the model on your own cases, all inside Slicer."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


def _findLibrary() -> None:
    """Put the folder that holds ForgettableSegLib on the path: beside this file installed, above it in a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here, here.parent):
        if (folder / "ForgettableSegLib").is_dir():
            for entry in {str(here), str(folder)} - set(sys.path):
                sys.path.insert(0, entry)
            return


_findLibrary()

from ForgettableSegGUI import facade, samples, self_test  # noqa: E402
from ForgettableSegGUI.parameters import ForgettableSegParameterNode  # noqa: E402
from ForgettableSegGUI.session import Session  # noqa: E402
from ForgettableSegGUI.worker_process import sharedWorker, shutdownSharedWorker  # noqa: E402

from ForgettableSegLib.resources import resources_dir  # noqa: E402


class ForgettableSeg(ScriptedLoadableModule):
    """The module as Slicer lists it."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("ForgettableSeg")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["ForgettableSeg contributors"]
        self.parent.helpText = _(
            "Segment volumes with a text-guided model, see where the model is unsure, correct it in the Segment "
            "Editor, and fine-tune the model on your own cases with hard-sample mining. Everything runs on this "
            "computer. Start in the section Setup, which installs what is missing."
        )
        self.parent.acknowledgementText = _(
            "The method follows the paper “Learning from what the model forgets: prototype-guided patch-wise replay "
            "for medical image segmentation”. Related work: ProLearn (ICCV 2025, arXiv 2507.11055), "
            "SCDL (arXiv 2603.05202), Sim-MPNet (arXiv 2507.00585). Built on MONAI, PyTorch and SimpleITK."
        )
        icon = resources_dir() / "Icons" / "ForgettableSeg.png"
        if icon.is_file():  # in a checkout the resources do not stand where Slicer looks for the icon
            self.parent.icon = qt.QIcon(str(icon))
        slicer.app.connect("startupCompleted()", samples.registerSampleData)


class ForgettableSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Wires the sections of the module to the scene."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: ForgettableSegLogic | None = None
        self.view: Any = None
        self.ui: Any = None
        self.guard: Any = None

    def setup(self) -> None:
        """Make the sections; called when the module is opened for the first time."""
        from ForgettableSegGUI.closing import CloseGuard
        from ForgettableSegGUI.module_view import ModuleView
        from ForgettableSegGUI.packages import installedPackages

        ScriptedLoadableModuleWidget.setup(self)
        self.logic = ForgettableSegLogic()
        session = Session(sharedWorker(), installedPackages)
        self.view = ModuleView(session, self.logic)
        self.guard = CloseGuard(session)
        self.ui = self.view.ui
        self.layout.addWidget(self.view.widget)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """End the worker; called when the application closes or the module is reloaded."""
        self.removeObservers()
        if self.view is not None:
            self.guard.remove()
            self.view.setParameterNode(None)
        shutdownSharedWorker()

    def enter(self) -> None:
        """Called each time the module is opened."""
        self.initializeParameterNode()
        self.view.enter()

    def exit(self) -> None:
        """Called each time another module is opened; jobs go on, so that their results still find the scene."""

    def onSceneStartClose(self, _caller: Any, _event: Any) -> None:
        """The parameter node is about to go."""
        self.view.forgetScene()

    def onSceneEndClose(self, _caller: Any, _event: Any) -> None:
        """A new scene has begun."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, _caller: Any, _event: Any) -> None:
        """A scene was loaded: its state is shown, as soon as the node selectors have seen the nodes that it brought."""
        if self.parent.isEntered:
            self.initializeParameterNode()
        qt.QTimer.singleShot(0, self.view.showScene)

    def initializeParameterNode(self) -> None:
        """Show the state that the scene holds."""
        self.view.setParameterNode(self.logic.getParameterNode())

    def onReload(self) -> None:
        """Reload this module with all of its packages (developer mode)."""
        self.cleanup()
        for name in [name for name in sys.modules if name.partition(".")[0] in facade.PACKAGES]:
            del sys.modules[name]
        importlib.invalidate_caches()
        ScriptedLoadableModuleWidget.onReload(self)


class ForgettableSegLogic(ScriptedLoadableModuleLogic):
    """What the module can do, for scripts: no widget is needed.

    Example:
        >>> logic = slicer.util.getModuleLogic("ForgettableSeg")
        >>> volumeNode = slicer.util.loadVolume("hippocampus.nrrd")
        >>> result = logic.segment(volumeNode, model="hippocampus")
        >>> result.segmentationNode.GetName()
        'hippocampus segmentation'
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)

    def getParameterNode(self) -> ForgettableSegParameterNode:
        """Return the state of the module that the scene holds."""
        return ForgettableSegParameterNode(super().getParameterNode())

    def models(self) -> list[Any]:
        """Return the cards of the installed models; waits for the answer."""
        return facade.models()

    def segment(self, volumeNodes: Any, model: str, **options: Any) -> Any:
        """Segment a volume and wait for the result.

        Args:
            volumeNodes: a volume node, or a list of one for each channel of the model.
            model: name of an installed model, or path of a package.
            options: `outputNode`, `roiNode`, `device` ("auto", "cpu", "mps", "cuda:0"), `heatmap` (True),
                `anyway` (segment a volume far larger than the model has learnt, which is refused otherwise),
                `onEvent` (hears every event of the job).

        Returns:
            A `SegmentationResult`: segmentationNode, heatmapNodes by channel, tableNode, seconds, remarks.

        Raises:
            ForgettableSegError: with one plain sentence that says what is wrong and what to do.

        Example:
            >>> result = logic.segment(volumeNode, model="hippocampus", device="cpu", heatmap=False)
        """
        return facade.segment(_asList(volumeNodes), model, **options)

    def startSegmentation(self, volumeNodes: Any, model: str, onFinished: Callable[[Any], None], **options: Any) -> str:
        """Segment a volume in the background; Slicer stays responsive.

        Args:
            volumeNodes: as in :meth:`segment`.
            model: as in :meth:`segment`.
            onFinished: called with the `SegmentationResult`, or with the exception.
            options: as in :meth:`segment`.

        Returns:
            The id of the job, for :meth:`cancel`.

        Example:
            >>> job = logic.startSegmentation(volumeNode, "hippocampus", print)
        """
        return facade.startSegmentation(sharedWorker(), _asList(volumeNodes), model, onFinished, **options)

    def fineTune(
        self,
        cases: Sequence[tuple[Any, Any]],
        model: str,
        name: str,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Fine-tune a model on cases of the scene and wait for the result.

        Args:
            cases: (volume node or list of them, segmentation node) of each case, at least three.
            model: the model to start from.
            name: of the model that comes out.
            settings: training settings by name ("minutes", "epochs", "rho", ...); the preset's values otherwise.
            options: `task` (for a model from scratch, with an empty `model`), `mapping` (class by segment name),
                `folder` (of the run), `onEvent` (hears every event of the job).

        Returns:
            A `TrainingResult`: modelPath, comparison (Dice before and after on held-out cases), folder.

        Raises:
            ForgettableSegError: with one plain sentence that says what is wrong and what to do.

        Example:
            >>> result = logic.fineTune(pairs, "hippocampus", "my-hippocampus", {"minutes": 5})
            >>> logic.installModel(result.modelPath)
        """
        pairs = [(_asList(volumes), segmentation) for volumes, segmentation in cases]
        return facade.fineTune(pairs, model, name, settings or {}, **options)

    def installModel(self, path: Path | str) -> str:
        """Verify a model package and install it; returns its name."""
        return facade.installModel(path)

    def cancel(self, job: str) -> None:
        """Stop a job that runs in the background at its next safe point."""
        sharedWorker().client.cancel(job)


class ForgettableSegTest(ScriptedLoadableModuleTest):
    """Segments and fine-tunes small synthetic cases for real, on the CPU."""

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run all tests."""
        self.setUp()
        self.test_trainSegmentAndFineTune()

    def test_trainSegmentAndFineTune(self) -> None:
        """Train a model on synthetic cases, segment with it, fine-tune it, and find Dice and nodes as they must be."""
        started = time.monotonic()
        self.delayDisplay(_("Training a small model on synthetic cases"))
        self_test.run(ForgettableSegLogic(), self.assertTrue)
        self.delayDisplay(_("Test passed in {seconds:.0f} s").format(seconds=time.monotonic() - started))


def _asList(nodes: Any) -> list[Any]:
    return list(nodes) if isinstance(nodes, list | tuple) else [nodes]
