"""The job `segment`: label maps, maps of estimated difficulty, reviews and volumes of cases."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ForgettableSegLib.jobs.arguments import DICOM_SEG
from ForgettableSegLib.jobs.casewise import CaseJob, CaseOutcome, Progress, Rows
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.outputs import OtherFile, to_json
from ForgettableSegLib.jobs.requests import SegmentRequest

if TYPE_CHECKING:
    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.cases.task import Task
    from ForgettableSegLib.inference.outcome import Segmentation
    from ForgettableSegLib.inference.predictor import Predictor, Region

KINDS = ("segmentation", "confidence", "prototype_ratio", "memory", "probabilities", "review", "preview", "task")
_ML = " ml"
FEW_CLASSES = 8
"""More of them are no longer told one by one in a line."""

_DIGITS = {"difficulty": 4, "percentile": 1}
VERDICTS = {
    "empty": "nothing was found",
    "usual": "as usual",
    "hard": "harder than usual: look at it with care",
    "unlike": "unlike anything that the model has learnt: do not trust it",
}
"""What a person reads for the verdict on a case."""


def run(request: SegmentRequest, context: JobContext) -> JobResult:
    """Segment the cases.

    Raises:
        ForgettableSegError: if nothing can be segmented at all.
        Cancelled: what is complete stays.
    """
    if request.file_format == DICOM_SEG:
        from ForgettableSegLib.cases.dicom_seg import require_highdicom

        require_highdicom()
    if request.preview:
        import matplotlib  # noqa: F401  before anything is computed

    def compute(predictor: Predictor, case: Case, progress: Progress) -> CaseOutcome:
        return _segment(predictor, case, request, progress)

    job = CaseJob(
        phase="segment", verb="Segmented", kinds=KINDS, table_kind="volumes", compute=compute, headlines=_case_table
    )
    return job.run(request, request.input if request.cases is None else request.cases, context)


def _segment(predictor: Predictor, case: Case, request: SegmentRequest, progress: Progress) -> CaseOutcome:
    others: dict[str, OtherFile] = {}
    if request.file_format == DICOM_SEG:
        from ForgettableSegLib.cases.dicom_seg import source_files

        files = source_files(case)  # before anything is computed
    found = predictor.segment_case(
        case,
        heatmap=request.heatmap,
        probabilities=request.probabilities,
        region=request.region or _region(case, request),
        anyway=request.anyway,
        progress=progress,
    )
    volumes = {"segmentation": found.labels, **found.difficulty}
    if request.file_format == DICOM_SEG:
        from ForgettableSegLib.cases.dicom_seg import write_dicom_seg

        del volumes["segmentation"]
        write = partial(write_dicom_seg, labels=found.labels, files=files, task=found.task, model=predictor.model.name)
        others["segmentation"] = (".dcm", write)
    if request.preview:
        others["preview"] = (".png", partial(_write_preview, case=case, found=found))
    others["task"] = (".json", partial(_write_task, task=found.task))
    if found.probabilities is not None:
        volumes["probabilities"] = found.probabilities
    whole = dict((found.review or {}).get("case_difficulty", {}))
    whole |= {name: round(whole[name], digits) for name, digits in _DIGITS.items() if name in whole}
    difficulty = {name: whole.get(name) for name in ("difficulty", "percentile", "verdict")}
    volumes_ml = {f"{name}{_ML}": round(volume, 4) for name, volume in found.volumes_ml.items()}
    return CaseOutcome(
        volumes=volumes,
        geometry=found.geometry,
        review=found.review,
        notes=[*found.notes, *_removed(found), *found.unlike],
        seconds=found.seconds,
        cells={**difficulty, **volumes_ml, "removed": sum(found.removed.values()), "unlike": " ".join(found.unlike)},
        others=others,
    )


def _write_task(path: Path, *, task: Task) -> None:
    """What the values of the label map mean: other classes than the model's where it found both sides."""
    path.write_text(to_json(task.to_dict()), encoding="utf-8")


def _removed(found: Segmentation) -> list[str]:
    """A sentence for each class that lay in pieces of which only the largest was kept; one for all if they are many."""
    sentence = "{} voxels of {} lay apart from the rest and were removed."
    if len(found.removed) <= FEW_CLASSES:
        return [sentence.format(count, name) for name, count in found.removed.items()]
    most = max(found.removed, key=found.removed.get)
    many = f"{len(found.removed)} structures (most of them of {most}, {found.removed[most]})"
    return [sentence.format(sum(found.removed.values()), many)]


def _region(case: Case, request: SegmentRequest) -> Region | None:
    """The box of voxels that the request gives in millimetres, if it does."""
    if request.region_mm is None:
        return None
    from ForgettableSegLib.cases.files import read_header

    return read_header(case.images[0]).geometry.index_box(*request.region_mm)


def _write_preview(path: Path, *, case: Case, found: Segmentation) -> None:
    from ForgettableSegLib.cases.files import read_image
    from ForgettableSegLib.evaluation.preview import draw_preview

    image, _ = read_image(case, channels=len(found.task.channels))
    volumes = [f"{name} {millilitres(volume)} ml" for name, volume in found.volumes_ml.items()]
    title = case.case_id if len(volumes) > FEW_CLASSES else f"{case.case_id}: {', '.join(volumes)}"
    picture = draw_preview(image[0], found.labels, found.geometry, found.task, title=title)
    path.write_bytes(picture)


def millilitres(volume: float) -> str:
    """Three digits of a volume, and no more than tell of a voxel: 0.123, 1.23, 12.3, 1234."""
    return f"{volume:.{3 if volume < 1 else 2 if volume < 10 else 1 if volume < 100 else 0}f}"


def _case_table(rows: Rows) -> list[str]:
    """A line a case: the volume of each class, and how hard it was for the model; of many classes a line a class."""
    names = list(dict.fromkeys(name for row in rows for name in row if name.endswith(_ML)))
    if not names:
        return []
    table = [["case", *names, "verdict"]]
    for row in rows:
        cells = (millilitres(row[name]) if name in row else "" for name in names)
        verdict = "unlike" if row.get("unlike") else row.get("verdict")
        table.append([row["case"], *cells, VERDICTS.get(verdict, "")])
    verdicts: list[str] = []
    if len(names) > max(FEW_CLASSES, len(rows)):
        verdicts = [f"{line[0]}: {line[-1]}" for line in table[1:] if line[-1]]
        table = [list(column) for column in zip(*(line[:-1] for line in table), strict=True)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return lines + verdicts
