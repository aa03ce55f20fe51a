"""The job `figures`: curves of a run, errors and class activation on held-out cases, and its bank over time."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.outputs import open_output
from ForgettableSegLib.jobs.requests import FiguresRequest

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ForgettableSegLib.cases.cache import PreparedCase
    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.evaluation.figures import BankSample, CaseView
    from ForgettableSegLib.models.package import ModelPackage
    from ForgettableSegLib.training.config import RunConfig

CURVES_FILE, CASES_FILE = "loss_and_dice.png", "errors_and_activation.png"
BANK_FILE, HISTORY_FILE = "bank_samples.png", "bank_history.png"
_WHAT = {
    CURVES_FILE: "loss and Dice over the training",
    CASES_FILE: "errors and class activation, the worst cases first",
    BANK_FILE: "samples in the bank",
    HISTORY_FILE: "classes and sizes in the bank",
}
SNAPSHOTS, THUMBNAILS = 5, 8
# Grad-CAM keeps all activations: larger inputs are left out.
_MAX_VOXELS = 2**20


def run(request: FiguresRequest, context: JobContext) -> JobResult:
    """Draw the figures.

    Raises:
        ForgettableSegError: RUN_MISMATCH or MODEL_MISSING if there is no finished run; PACKAGE_MISSING without
            matplotlib.
        Cancelled: at the next case.
    """
    import matplotlib  # noqa: F401  before anything is computed

    from ForgettableSegLib.evaluation.report import write_file
    from ForgettableSegLib.inference.device import resolve_device
    from ForgettableSegLib.models.package import ModelPackage
    from ForgettableSegLib.training.config import RunConfig

    folder = Path(request.run).absolute()
    config = RunConfig.read(folder)
    if not (folder / "model").is_dir():
        message = f"The run in {folder} has made no model yet."
        raise ForgettableSegError(ErrorCode.MODEL_MISSING, message, hint="Resume it first.")
    package = ModelPackage.read(folder / "model")
    output = open_output(request.output, config.cases, context)
    pictures = {CURVES_FILE: _curves(folder)}
    pictures[CASES_FILE] = _cases(config, package, resolve_device(request.device), request.cases, context)
    pictures |= _bank(folder, config, context)
    written = []
    for name, picture in pictures.items():
        if picture is not None:
            write_file(output / name, picture)
            context.artifact("report", output / name)
            written.append(str(output / name))
    if not written:
        raise ForgettableSegError(ErrorCode.CASE_INVALID, "None of the cases of the run could be drawn.")
    lines = [f"{path}  {_WHAT[Path(path).name]}" for path in written]
    return JobResult(context.exit_code(), {"output": str(output), "figures": written}, "\n".join(lines))


def _curves(folder: Path) -> bytes | None:
    """Loss and Dice of the training; nothing where its history was taken away."""
    from ForgettableSegLib.evaluation.figures import draw_curves

    path = folder / "history.csv"
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return draw_curves(rows) if rows else None


def _prepare(config: RunConfig, cases: list[Case], context: JobContext) -> list[PreparedCase]:
    from ForgettableSegLib.cases.cache import CaseCache
    from ForgettableSegLib.resources import user_cache_dir

    def tell(done: int, of: int, case: str) -> None:
        context.check_cancelled()
        context.progress("prepare cases", done, of)

    return CaseCache(user_cache_dir() / "cases").prepare(
        cases,
        config.task,
        config.preprocessing,
        progress=tell,
        on_error=lambda case, error: context.case_failed(case.case_id, error),
    )


def _cases(
    config: RunConfig, package: ModelPackage, device: torch.device, number: int, context: JobContext
) -> bytes | None:
    """The held-out cases with the most errors, each with its worst slice."""
    from ForgettableSegLib.evaluation.figures import draw_cases
    from ForgettableSegLib.network.forward import predict_prepared

    network = package.network().to(device)
    prepared = _prepare(config, config.select(config.split.test or config.split.validation), context)
    found: list[tuple[float, PreparedCase, np.ndarray]] = []
    for index, case in enumerate(prepared):
        context.check_cancelled()
        context.progress("find errors", index, len(prepared), case=case.case_id)
        logits = predict_prepared(
            network,
            case.image,
            spatial_dims=config.preprocessing.spatial_dims,
            patch_size=config.patch_size,
            device=device,
        )
        prediction = logits.argmax(0).numpy()
        wrong = float((prediction != case.label).sum()) / max(1, int((case.label > 0).sum()))
        found = sorted([*found, (wrong, case, prediction)], key=lambda entry: -entry[0])[:number]
    context.progress("find errors", len(prepared), len(prepared))
    names = [each.name for each in config.task.classes]
    views = [_view(case, prediction, network, config, device) for _, case, prediction in found]
    return draw_cases(views, names) if views else None


def _view(
    case: PreparedCase, prediction: np.ndarray, network: torch.nn.Module, config: RunConfig, device: torch.device
) -> CaseView:
    import numpy as np

    from ForgettableSegLib.evaluation.figures import CaseView, class_activation

    errors = (prediction != case.label).sum((1, 2))
    worst = int(errors.argmax()) if errors.any() else int((case.label > 0).sum((1, 2)).argmax())
    image, place = _input(case, worst, config)
    architecture = config.network.get("architecture", "unet")
    window = config.network.get("window") or image.shape[2:]
    fits = image.numel() <= _MAX_VOXELS and all(n <= most for n, most in zip(image.shape[2:], window, strict=True))
    activation = {
        each.name: class_activation(network, architecture, image.to(device), index)[place]
        for index, each in enumerate(config.task.classes, start=1)
        if fits
    }
    return CaseView(
        title=f"{case.case_id}, slice {worst}",
        image=np.array(case.image[0, worst]),
        reference=np.array(case.label[worst]),
        prediction=prediction[worst],
        activation=activation,
        aspect=case.spacing[1] / case.spacing[2],
    )


def _input(case: PreparedCase, index: int, config: RunConfig) -> tuple[torch.Tensor, Any]:
    """What the network is shown of a slice, and where the slice is in it."""
    import torch

    from ForgettableSegLib.network.context import with_neighbours

    if config.preprocessing.spatial_dims == 2:
        around = with_neighbours(case.image, index, index + 1, config.network.get("context_slices", 0))
        return torch.from_numpy(around), ...
    depth = config.patch_size[0]
    first = max(0, min(index - depth // 2, case.image.shape[1] - depth))
    return torch.from_numpy(case.image[:, first : first + depth].copy())[None], index - first


def _bank(folder: Path, config: RunConfig, context: JobContext) -> dict[str, bytes | None]:
    """How the bank changed; nothing for a run without one."""
    from ForgettableSegLib.evaluation.figures import draw_bank, draw_bank_history, evenly
    from ForgettableSegLib.training.recorder import BANK_HISTORY, read_bank_history

    history = [entry for entry in read_bank_history(folder / BANK_HISTORY) if entry["samples"]]
    if not history:
        context.log("The run has no history of a bank.")
        return {}
    shown = evenly(history, SNAPSHOTS)
    ids = dict.fromkeys(case for entry in shown for case, _, _ in entry["samples"])
    prepared = {case.case_id: case for case in _prepare(config, config.select(ids), context)}
    index = {each.name: number for number, each in enumerate(config.task.classes, start=1)}
    samples = {
        entry["iteration"]: [
            _sample(prepared[case], position, name, index.get(name, 0))
            for case, position, name in entry["samples"]
            if case in prepared
        ]
        for entry in shown
    }
    samples = {iteration: found for iteration, found in samples.items() if found}
    if not samples:
        return {}
    areas = {
        iteration: [sample.area_mm2 for sample in found if sample.area_mm2] for iteration, found in samples.items()
    }
    classes = {entry["iteration"]: [name for _, _, name in entry["samples"]] for entry in history}
    thumbnails = {iteration: evenly(found, THUMBNAILS) for iteration, found in samples.items()}
    return {BANK_FILE: draw_bank(thumbnails), HISTORY_FILE: draw_bank_history(classes, areas)}


def _sample(case: PreparedCase, position: int, name: str, label: int) -> BankSample:
    import numpy as np

    from ForgettableSegLib.evaluation.figures import BankSample

    mask = np.array(case.label[position]) == label if label else np.zeros(case.label.shape[1:], dtype=bool)
    area = float(mask.sum()) * case.spacing[1] * case.spacing[2]
    return BankSample(class_name=name, image=np.array(case.image[0, position]), mask=mask, area_mm2=area)
