"""What is chosen in the Fine-tune panel: the start model, the task that is trained, the settings. No Qt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ForgettableSegLib.cases.task import Task

from ..model_cards import ModelCard
from ..session import Session
from .model import SCRATCH, casesFromJson, classesFromJson, newTask, trainingSettings

_SETTINGS = (
    "preset",
    "trainingLength",
    "trainingUnit",
    "trainingDevice",
    "dimension",
    "textGuidance",
    "prototypeScores",
    "sampleBank",
    "rho",
    "bankBatches",
    "replayEvery",
    "admission",
    "replacement",
    "auxLoss",
    "memory",
    "guidance",
    "learningRate",
    "patchSize",
)


class Choices:
    """Reads the choices of the panel out of the parameter node; every part of the panel asks it.

    Args:
        session: knows the installed models.
        parameters: gives the parameter node, or None.
    """

    def __init__(self, session: Session, parameters: Callable[[], Any]) -> None:
        self._session, self._parameters = session, parameters

    @property
    def parameterNode(self) -> Any:
        """The state in the scene, None while a scene is being closed."""
        return self._parameters()

    @property
    def startCard(self) -> ModelCard | None:
        """The model to start from, None for one from scratch."""
        return None if self.parameterNode is None else self._session.model(self.parameterNode.startModel)

    @property
    def isScratch(self) -> bool:
        """Whether a new model is chosen, which is not so while the models are not listed yet."""
        return self.parameterNode is not None and self.parameterNode.startModel == SCRATCH

    def task(self) -> Task | None:
        """Return the task to train, None where it is not complete."""
        return self._task()[0]

    def taskProblem(self) -> str:
        """Return the sentence that says why there is no task, or nothing."""
        return self._task()[1]

    def settings(self) -> dict[str, Any]:
        """Return the settings of the request."""
        values = {name: self.parameterNode.getValue(name) for name in _SETTINGS}
        return trainingSettings(values, scratch=self.isScratch)

    def _task(self) -> tuple[Task | None, str]:
        parameters = self.parameterNode
        if parameters is None:
            return None, ""
        if self.startCard is not None:
            return self.startCard.task, ""
        if not self.isScratch:
            return None, self._session.whyNoModel(parameters.startModel)
        cases = casesFromJson(parameters.trainingCases)
        channels = max((case.channels for case in cases), default=1)
        names = [parameters.modality] if channels == 1 else [f"{parameters.modality} {n + 1}" for n in range(channels)]
        return newTask(parameters.newModelName, parameters.modality, names, classesFromJson(parameters.newClasses))
