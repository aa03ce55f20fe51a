"""The job `models`: the models on this machine, listed, shown, installed, exported and removed."""

from __future__ import annotations

from collections.abc import Callable

from ForgettableSegLib.jobs.job import JobContext, JobResult
from ForgettableSegLib.jobs.requests import ModelsRequest


def run(request: ModelsRequest, context: JobContext) -> JobResult:
    """Do what the request's action says.

    Raises:
        ForgettableSegError: MODEL_MISSING, MODEL_INVALID, OUTPUT_UNWRITABLE or DISK_FULL.
    """
    actions: dict[str, Callable[[ModelsRequest], JobResult]] = {
        "list": _list,
        "show": _show,
        "install": _install,
        "export": _export,
        "remove": _remove,
    }
    result = actions[request.action](request)
    if "path" in result.result:
        context.artifact("model", result.result["path"])
    return result


def _list(request: ModelsRequest) -> JobResult:
    from ForgettableSegLib.models.registry import list_models

    models = list_models()
    lines = [
        f"{model.name}  {model.size_bytes / 2**20:.1f} MB  {model.problem or _classes(model.card)}" for model in models
    ]
    return JobResult(
        result={"models": [model.to_dict() for model in models]}, text="\n".join(lines) or "No model is installed."
    )


def _show(request: ModelsRequest) -> JobResult:
    from ForgettableSegLib.models.package import ModelPackage
    from ForgettableSegLib.models.registry import find_model

    package = ModelPackage.read(find_model(request.name))
    card = dict(package.card)
    lines = [
        f"{name}: {card[name]}" for name in ("name", "title", "description", "licence", "attribution") if card.get(name)
    ]
    lines += [f"classes: {_classes(card)}", f"modality: {package.task.modality}", f"metrics: {card.get('metrics', {})}"]
    return JobResult(result={"model": {"name": package.name, "card": card}}, text="\n".join(lines))


def _install(request: ModelsRequest) -> JobResult:
    from ForgettableSegLib.models.registry import install

    model = install(request.path)
    return JobResult(
        result={"model": model.to_dict(), "path": str(model.path)}, text=f"Installed '{model.name}' in {model.path}."
    )


def _export(request: ModelsRequest) -> JobResult:
    from ForgettableSegLib.models.package import ModelPackage
    from ForgettableSegLib.models.registry import find_model

    path = ModelPackage.read(find_model(request.name)).write(request.path)
    return JobResult(result={"name": request.name, "path": str(path)}, text=f"Exported '{request.name}' to {path}.")


def _remove(request: ModelsRequest) -> JobResult:
    from ForgettableSegLib.models.registry import remove

    freed = remove(request.name)
    return JobResult(
        result={"name": request.name, "bytes_freed": freed},
        text=f"Removed '{request.name}' and freed {freed / 2**20:.1f} MB.",
    )


def _classes(card: dict) -> str:
    return ", ".join(each["name"] for each in card["task"]["classes"])
