"""What the Models panel decides: the rows of its table, the card, what may be removed and what is asked before."""

from __future__ import annotations

from collections.abc import Sequence

from ..i18n import tr as _
from ..model_cards import BrokenModel, ModelCard, cardDetails, sizeText
from ..runs import runTitle
from .storage import Run

Model = ModelCard | BrokenModel


def modelRows(models: Sequence[Model]) -> list[list[str]]:
    """Return the rows of the table of models; one that cannot be used tells why in the place of its classes."""
    return [
        [model.title, ", ".join(model.classNames), sizeText(model.bytes)]
        if isinstance(model, ModelCard)
        else [model.name, model.problem, sizeText(model.bytes)]
        for model in models
    ]


def modelDetails(model: Model | None) -> str:
    """Return what is said of the selected model."""
    if model is None:
        return ""
    return cardDetails(model) if isinstance(model, ModelCard) else model.problem


def removeToolTip(model: Model | None) -> str:
    """Return what the button Remove would do, or why it does nothing."""
    if model is not None and model.shipped:
        return _("This model came with the extension and stays.")
    return _("Remove the selected model from this computer.")


def removeQuestion(model: Model) -> str:
    """Return what is asked before a model is removed."""
    text = _("Remove the model {name} from this computer? This frees {size}.")
    return text.format(name=model.name, size=sizeText(model.bytes))


def storageSentence(runs: Sequence[Run]) -> str:
    """Return what the trainings have left on the disk, and what of it is still needed."""
    if not runs:
        return _("No training has left anything on this computer.")
    text = _("Trainings on this computer: {count}, with their cases, pictures and tables {size}.")
    text = text.format(count=len(runs), size=sizeText(sum(run.size for run in runs)))
    still = sum(run.isOpen for run in runs)
    return f"{text} {_('Not over yet: {count}.').format(count=still)}" if still else text


def freeQuestion(runs: Sequence[Run]) -> str:
    """Return what is asked before the folders of trainings are removed; those that may still be needed are named."""
    size = sizeText(sum(run.size for run in runs))
    if any(run.isOpen for run in runs):
        names = ", ".join(runTitle(run.folder) for run in runs)
        text = _("These trainings can still go on, or wait for a decision: {names}. Remove them for good ({size})?")
        return text.format(names=names, size=size)
    text = _("Remove what {count} trainings that are over have left? This frees {size}. The installed models stay.")
    return text.format(count=len(runs), size=size)
