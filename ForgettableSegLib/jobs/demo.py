"""The job `demo`: the whole loop on a brain that comes with a Python package, so that no data has to be fetched.

It calls the jobs `segment`, `train` and `finetune` as a user would, with their own requests.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ForgettableSegLib.jobs import demo_data, finetune, segment, train
from ForgettableSegLib.jobs.exit_codes import EXIT_DONE
from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import DemoRequest, make_request

MODEL = "hippocampus"
"""The starter model that segments."""

TISSUE_SETTINGS = {"spatial_dims": 2, "batch_size": 8, "replay_every": 4, "seed": 6}
"""For two cores: small batches, and replay often enough to be seen in few iterations.

The seed decides the split: slab 4 is kept out and slab 5 chooses the model, with training slabs below and above them.
"""

ROUGH = {"iterations": 30, "validate_every": 30, "patch_size": [64, 64], "features": [16, 32, 64, 128]}
"""The first training, which makes a small, rough model of tissue."""

ROUGH_HEADING = "First training: a rough model of brain tissue on slices."
FINE_HEADING = "Second training: the rough model is fine-tuned, with hard samples replayed."

FINE = {"minutes": 2.0}
"""Length of the second, whose gain is shown."""


def run(request: DemoRequest, context: JobContext) -> JobResult:
    """Segment both hippocampi in the whole MNI152 template, then train and fine-tune a model of tissue on slabs of it.

    Args:
        request: where to write and compute.
        context: receives the events of both jobs.

    Returns:
        Volumes in ml, Dice before and after on the slab that was kept out, where everything lies, and seconds.

    Raises:
        ForgettableSegError: whatever stops `segment` or `finetune`; PACKAGE_MISSING without nilearn.
    """
    output = Path(request.output)
    seconds = {}
    started = time.monotonic()
    head = demo_data.write_head(output / "hippocampi" / "images")
    segmented = _segment([head], output / "hippocampi", request.device, context)
    if segmented.exit_code != EXIT_DONE:
        return segmented
    results = output / "hippocampi" / head["id"]
    kinds = ("segmentation", "confidence", "prototype_ratio")
    maps = {kind: results / f"{head['id']}_{kind}.nrrd" for kind in kinds}
    overview = demo_data.write_overview(output / "hippocampi", maps)
    seconds["segment"] = round(time.monotonic() - started, 1)
    context.check_cancelled()
    started = time.monotonic()
    held_out = _finetune_tissue(output / "tissue", request.device, context)
    seconds["finetune"] = round(time.monotonic() - started, 1)
    result = {
        "output": str(output),
        "volumes_ml": _volumes(results / f"{head['id']}_review.json"),
        "held_out": held_out,
        "task": json.loads((results / f"{head['id']}_task.json").read_text(encoding="utf-8")),
        "overview": {name: str(path) for name, path in overview.items()},
        "seconds": seconds,
    }
    summary = output / "demo.json"
    summary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    context.artifact("report", summary)
    return JobResult(exit_code=context.exit_code(), result=result, text=_as_text(result))


def _segment(cases: list[dict[str, Any]], folder: Path, device: str, context: JobContext) -> JobResult:
    """Segment cases with the starter model, which finds its regions by itself."""
    arguments = {"model": MODEL, "cases": cases, "output": str(folder), "device": device, "heatmap": True}
    return segment.run(make_request("segment", arguments), context)


def _volumes(file: Path) -> dict[str, float]:
    """The volume of each structure in the review of a segmented case, in ml."""
    review = json.loads(file.read_text(encoding="utf-8"))
    return {each["name"]: round(each["volume_ml"], 3) for each in review["classes"]}


def _finetune_tissue(folder: Path, device: str, context: JobContext) -> dict[str, Any]:
    """Train a small model of other classes and fine-tune it; return what the fine-tuning brought.

    Dice before can only be told of a model that knows the classes, so a rough one is trained first.
    """
    arguments = {
        "cases": demo_data.write_tissue_cases(folder / "cases"),
        "task": demo_data.TISSUE_TASK,
        "name": "brain tissue",
    }
    steps = (("rough", train, ROUGH, ROUGH_HEADING), ("fine", finetune, FINE, FINE_HEADING))
    for step, job, changes, heading in steps:
        context.log(heading)
        settings = {**TISSUE_SETTINGS, **changes, "device": device}
        arguments |= {"run": str(_unused(folder / step)), "settings": settings}
        trained = job.run(make_request("train" if job is train else "finetune", arguments), context)
        arguments["model"] = model = trained.result["model"]
        # A finished run is not taken up again, and its state is several times as large as its model.
        shutil.rmtree(Path(arguments["run"]) / "checkpoint", ignore_errors=True)
    picture = _tissue_picture(folder, arguments, model, device, context)
    return {"run": arguments["run"], "model": model, "picture": picture, **trained.result["held_out"]}


def _tissue_picture(
    folder: Path, trained: Mapping[str, Any], model: str, device: str, context: JobContext
) -> str | None:
    """Segment a slab that was kept out with the new model, and draw it; None without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    split = json.loads((Path(trained["run"]) / "split.json").read_text(encoding="utf-8"))
    kept_out = (split["test"] or split["validation"])[0]
    (case,) = ({"id": each["id"], "images": each["images"]} for each in trained["cases"] if each["id"] == kept_out)
    arguments = {"model": model, "cases": [case], "output": str(folder / "segmented"), "device": device}
    done = segment.run(make_request("segment", {**arguments, "heatmap": False, "preview": True}), context)
    picture = folder / "segmented" / kept_out / f"{kept_out}_preview.png"
    return str(picture) if done.exit_code == EXIT_DONE else None


def _unused(folder: Path) -> Path:
    """`folder`, or with a number behind it where an earlier demonstration has left its run."""
    names = itertools.chain([folder], (folder.with_name(f"{folder.name}_{number}") for number in itertools.count(2)))
    return next(name for name in names if not name.exists())


def _as_text(result: Mapping[str, Any]) -> str:
    """What was found and where it lies, for a person."""
    picture = result["held_out"].get("picture")
    lines = ["Volumes of the hippocampi in the MNI152 template, as the model sees them:"]
    lines += [f"  {name}: {volume:.2f} ml" for name, volume in result["volumes_ml"].items()]
    lines += ["Dice of brain tissue on slices that were kept out, before and after the last fine-tuning:"]
    lines += _dice_table(result["held_out"]["before"], result["held_out"]["after"])
    lines += [
        "  The slices come from the same brain, so this shows that fine-tuning works, not how well it carries over.",
        "Where it lies:",
        f"  {result['overview']['segmentation']}  label map",
        f"  {result['overview']['confidence']}  uncertainty (percentile)",
        f"  {result['overview']['prototype_ratio']}  atypicality (percentile)",
        f"  {Path(result['output']) / 'hippocampi'}  results of the whole head, volumes in summary.csv",
        f"  {result['held_out']['run']}  the last training run; model/ in it is the new model",
        *([f"  {picture}  grey and white matter of a slab that was kept out"] if picture else []),
        f"  {Path(result['output']) / 'demo.json'}  these numbers",
    ]
    return "\n".join(lines)


def _dice_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    """A line for each class and the mean."""
    return [f"  {name}: {_number(before.get(name))} before, {_number(value)} after" for name, value in after.items()]


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, (int, float)) else "not defined"
