"""What the jobs of the review are asked with. Standard library only, for Slicer imports it in its own process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ForgettableSegLib.jobs.arguments import Cases, Count, Device, Flag, Text
from ForgettableSegLib.jobs.request import Request


@dataclass(frozen=True, kw_only=True)
class ForgettingRequest(Request):
    """Tell what a training learnt, forgot and never learnt.

    Args:
        run: folder of the run.
        output: folder that receives tables and report.
        images: put pictures of slices into the report.
    """

    job: ClassVar[str] = "forgetting"
    run: Text
    output: Text
    images: Flag = True


@dataclass(frozen=True, kw_only=True)
class SuspectsRequest(Request):
    """Rank slices, regions and cases by how probably their labels are wrong.

    Args:
        output: folder that receives tables and report.
        run: folder of a run, or of folds, whose cases are judged, each by the model that held it out; or give ``model``
            and ``cases``.
        model: name or path of a model that has not learnt the cases; with ``cases``.
        cases: labelled cases, or a case list; with ``model``.
        reviews: file of decisions, whose places are not listed again; the one beside the cases where it is None.
        budget: how many slices and regions to list at most.
        images: put pictures of slices into the report.
        device: where the model runs.
    """

    job: ClassVar[str] = "suspects"
    output: Text
    run: Text | None = None
    model: Text | None = None
    cases: Cases | None = None
    reviews: Text | None = None
    budget: Count = 200
    images: Flag = True
    device: Device = "auto"

    def _whole(self) -> str:
        if (self.run is None) == (self.model is None) or (self.model is None) != (self.cases is None):
            return "The job 'suspects' needs either the argument 'run', or 'model' and 'cases'."
        return ""


@dataclass(frozen=True, kw_only=True)
class RankRequest(Request):
    """Rank unlabelled cases and their slices by what is worth labelling next.

    Args:
        model: name or path of the model.
        cases: the cases, or a case list, or a folder of images; labelled ones are passed over.
        output: folder that receives tables and report.
        budget: how many cases to ask for.
        reviews: file that remembers what was asked for; the one beside the cases where it is None.
        again: also rank the cases that were asked for with the same model before.
        images: put pictures of slices into the report.
        device: where the model runs.
    """

    job: ClassVar[str] = "rank"
    model: Text
    cases: Cases
    output: Text
    budget: Count = 10
    reviews: Text | None = None
    again: Flag = False
    images: Flag = True
    device: Device = "auto"
