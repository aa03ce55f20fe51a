"""What each job is asked with: one frozen dataclass a job, checked before anything is read or computed.

Standard library only, for Slicer imports it in its own process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ForgettableSegLib.jobs.arguments import (
    Cases,
    Convention,
    Count,
    Device,
    FileFormat,
    Flag,
    ModelAction,
    Names,
    Region,
    RegionMm,
    Seeds,
    SegmentFormat,
    Settings,
    Shard,
    TaskSource,
    Text,
)
from ForgettableSegLib.jobs.request import Request, refused
from ForgettableSegLib.jobs.review_requests import ForgettingRequest, RankRequest, SuspectsRequest


@dataclass(frozen=True, kw_only=True)
class SegmentRequest(Request):
    """Segment cases with a model.

    Args:
        model: name of an installed model, or path of a package.
        output: folder that receives one subfolder a case and the summary.
        cases: the cases, or a case list; or give ``input``.
        input: an image file, a folder of them, a DICOM folder or a case list; or give ``cases``.
        device: auto, cpu, mps, cuda or cuda:<number>.
        heatmap: also write the two maps of estimated difficulty and the review.
        probabilities: also write the class probabilities.
        file_format: ending of the volumes written; or "dicom-seg" for a DICOM Segmentation of a DICOM series.
        preview: also write a picture of three planes through what was found.
        region: box of voxel indices [[x, y, z], [x, y, z]] (upper ends excluded) outside which is background, or None.
        region_mm: the same by two corners in millimetres (LPS, ends included); or give ``region``, or neither.
        anyway: segment a volume as it is, however much larger it is than those that the model has learnt.
    """

    job: ClassVar[str] = "segment"
    model: Text
    output: Text
    cases: Cases | None = None
    input: Text | None = None
    device: Device = "auto"
    heatmap: Flag = True
    probabilities: Flag = False
    file_format: SegmentFormat = ".nrrd"
    preview: Flag = False
    region: Region | None = None
    region_mm: RegionMm | None = None
    anyway: Flag = False

    def _whole(self) -> str:
        if self.region is not None and self.region_mm is not None:
            return "The job 'segment' takes either the argument 'region' or the argument 'region_mm'."
        if (self.cases is None) == (self.input is None):
            return "The job 'segment' needs either the argument 'cases' or the argument 'input'."
        return ""


@dataclass(frozen=True, kw_only=True)
class TrainingRequest(Request):
    """What all trainings are asked with.

    Args:
        cases: labelled cases, or a case list.
        run: folder of the run, new or empty.
        task: the task as JSON, a path of it, or None where the case list holds one.
        settings: training settings by name; what is not named keeps the preset's value.
        name: name of the model that comes out; the run folder's name where it is None.
        reviews: file of decisions on the labels, whose quarantined cases and slices stay out of the training; the one
            beside the cases where it is None.
    """

    cases: Cases
    run: Text
    task: TaskSource | None = None
    settings: Settings = field(default_factory=dict)
    name: Text | None = None
    reviews: Text | None = None


@dataclass(frozen=True, kw_only=True)
class TrainRequest(TrainingRequest):
    """Train a model from scratch, or one for each of so many folds, which holds it out, and average them."""

    job: ClassVar[str] = "train"
    folds: Count | None = None


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest(TrainingRequest):
    """Go on training a model on other cases: the arguments of ``TrainingRequest`` and the model to start from."""

    job: ClassVar[str] = "finetune"
    model: Text


@dataclass(frozen=True, kw_only=True)
class ResumeRequest(Request):
    """Go on with a run that was cancelled or cut off.

    Args:
        run: folder of the run.
    """

    job: ClassVar[str] = "resume"
    run: Text


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(Request):
    """Compare segmentations with references: those of a folder, or those that a model makes now.

    Args:
        output: folder that receives the report.
        predictions: folder of label maps; or give ``model`` and ``cases``.
        references: folder of label maps, or a case list; with ``predictions``.
        compare: a second folder of label maps, for a paired comparison; with ``predictions``.
        model: name or path of the model; with ``cases``.
        cases: labelled cases, or a case list; with ``model``.
        task: the task as JSON, a path of it, or None where the references or the model hold one.
        convention: how absent structures and distances are counted.
        device: where the model runs.
    """

    job: ClassVar[str] = "evaluate"
    output: Text
    predictions: Text | None = None
    references: Text | None = None
    compare: Text | None = None
    model: Text | None = None
    cases: Cases | None = None
    task: TaskSource | None = None
    convention: Convention = "ours"
    device: Device = "auto"

    def _whole(self) -> str:
        files = self.predictions is not None and self.references is not None
        model = self.model is not None and self.cases is not None
        given = [value for value in (self.predictions, self.references, self.model, self.cases) if value is not None]
        if files == model or len(given) != 2:
            return "The job 'evaluate' needs either 'predictions' and 'references', or 'model' and 'cases'."
        if self.compare is not None and not files:
            return "The job 'evaluate' takes 'compare' only together with 'predictions'."
        return ""


@dataclass(frozen=True, kw_only=True)
class AuditRequest(Request):
    """Show where labelled cases are hard for a model or labelled doubtfully: T1 to T4 and their sum.

    Args:
        model: name or path of the model.
        cases: cases with a label (or reference) each, or a case list.
        output: folder that receives one subfolder a case.
        device: where the model runs.
        file_format: ending of the volumes written.
    """

    job: ClassVar[str] = "audit"
    model: Text
    cases: Cases
    output: Text
    device: Device = "auto"
    file_format: FileFormat = ".nrrd"


@dataclass(frozen=True, kw_only=True)
class ValidateRequest(Request):
    """Look for everything that would spoil a training on these cases.

    Args:
        cases: the cases, or a case list.
        task: the task as JSON, a path of it, or None where the case list holds one.
        model: name or path of a model that is to be fine-tuned on them, whose classes are then meant.
    """

    job: ClassVar[str] = "validate"
    cases: Cases
    task: TaskSource | None = None
    model: Text | None = None


@dataclass(frozen=True, kw_only=True)
class ModelsRequest(Request):
    """List, show, install, export or remove models, or add a locator to one.

    Args:
        action: list, show, install, export, remove or locate.
        name: which model, for show, export, remove and locate.
        path: the package to install, or the file or folder to export to, or to write the model with its locator to.
        template: for locate, the image in which the regions lie.
        regions: for locate, a JSON file with the regions.
        mask: for locate, a label map on the template's grid: only what it covers is compared.
    """

    job: ClassVar[str] = "models"
    action: ModelAction
    name: Text | None = None
    path: Text | None = None
    template: Text | None = None
    regions: Text | None = None
    mask: Text | None = None

    def _whole(self) -> str:
        needs = {"show": ("name",), "install": ("path",), "export": ("name", "path"), "remove": ("name",)}
        needs["locate"] = ("name", "path", "template", "regions")
        for argument in needs.get(self.action, ()):
            if getattr(self, argument) is None:
                return f"The job 'models' needs the argument '{argument}' for the action '{self.action}'."
        return ""


@dataclass(frozen=True, kw_only=True)
class CheckRequest(Request):
    """Say which packages, versions and devices there are, and compute for a moment on one of them.

    Args:
        device: where to compute.
    """

    job: ClassVar[str] = "check"
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class DemoRequest(Request):
    """Run the demonstration.

    Args:
        output: folder that receives what it makes.
        device: where to compute.
    """

    job: ClassVar[str] = "demo"
    output: Text = "demo-output"
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class ExperimentRequest(Request):
    """Train the variants of a plan and compare them; what is done already is not done again.

    Args:
        plan: name of a ready plan, or path of one.
        cases: labelled cases, or a case list.
        output: folder that receives the runs and a folder of results a plan.
        task: the task as JSON, a path of it, or None where the case list holds one.
        shard: "i/n" does the i-th of n parts of the runs only; under torchrun that of the rank by default.
        seeds: instead of the plan's.
        iterations: of every run, instead of the plan's.
        variants: names of those to do; all if None.
        settings: training settings for all variants, beside the plan's.
        device: where to compute.
    """

    job: ClassVar[str] = "experiment"
    plan: Text
    cases: Cases
    output: Text
    task: TaskSource | None = None
    shard: Shard | None = None
    seeds: Seeds | None = None
    iterations: Count | None = None
    variants: Names | None = None
    settings: Settings = field(default_factory=dict)
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class FiguresRequest(Request):
    """Draw figures of a finished run: errors, class activation, and how its bank changed.

    Args:
        run: folder of the run.
        output: folder that receives the figures.
        cases: how many cases to draw, the worst first.
        device: where to compute.
    """

    job: ClassVar[str] = "figures"
    run: Text
    output: Text
    cases: Count = 4
    device: Device = "auto"


REQUESTS: dict[str, type[Request]] = {
    each.job: each
    for each in (
        SegmentRequest,
        TrainRequest,
        FinetuneRequest,
        ResumeRequest,
        EvaluateRequest,
        AuditRequest,
        ValidateRequest,
        ModelsRequest,
        CheckRequest,
        DemoRequest,
        ExperimentRequest,
        FiguresRequest,
        ForgettingRequest,
        SuspectsRequest,
        RankRequest,
    )
}
"""The request of every job, by the job's name."""


def make_request(job: str, arguments: Mapping[str, Any]) -> Request:
    """Return the checked request of a job.

    Raises:
        ForgettableSegError: REQUEST_INVALID, if there is no such job or its arguments are wrong.
    """
    if job not in REQUESTS:
        raise refused(f"There is no job '{job[:60]}'; there are {', '.join(REQUESTS)}.")
    return REQUESTS[job].from_dict(arguments)
