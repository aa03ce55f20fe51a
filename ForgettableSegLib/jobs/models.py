"""The job `models`: the models on this machine, listed, shown, installed, exported and removed, or given a locator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
        "locate": _locate,
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
    from ForgettableSegLib.models.archive import read_card
    from ForgettableSegLib.models.registry import find_model

    card = read_card(find_model(request.name), verify=True)
    return JobResult(result={"model": {"name": card["name"], "card": card}}, text=_card_text(card))


def _card_text(card: Mapping[str, Any]) -> str:
    """What a person wants to know of a model before using it, a fact a line."""
    task, preprocessing = card["task"], card["preprocessing"]
    steps = ["the case's own" if step is None else f"{step:g} mm" for step in preprocessing["spacing"]]
    spacing = ", ".join(f"{axis} {step}" for axis, step in zip("zyx", steps, strict=True))
    provenance, text = card.get("provenance", {}), card.get("text", {})
    facts = {
        "Name": card["name"],
        "Title": card.get("title"),
        "Description": card.get("description"),
        "Modality": f"{task['modality']}, channels: {', '.join(task['channels'])}",
        "Works in": f"{preprocessing['spatial_dims']}D, spacing {spacing}",
        "Text": f"{len(text['prompts'])} prompts, encoded by {text.get('encoder', 'an encoder')}"
        if text.get("prompts")
        else "no prompts",
        "Trained on": f"{provenance['number_of_training_volumes']} volumes"
        if "number_of_training_volumes" in provenance
        else None,
        "Licence": card.get("licence"),
        "Attribution": card.get("attribution"),
    }
    width = max(map(len, facts)) + 2
    lines = [f"{name + ':':<{width}}{fact}" for name, fact in facts.items() if fact]
    return "\n".join([*lines, "", *_class_table(card)])


def _class_table(card: Mapping[str, Any]) -> list[str]:
    """A line a class: label value and name, and how the model did on cases held out of its training."""
    held_out = card.get("metrics", {}).get("held_out", {})
    dice, distance = held_out.get("dice", {}), held_out.get("hd95_mm", {})
    names = [each["name"] for each in card["task"]["classes"]]
    width = max(map(len, ["Class", *names]))
    head = f"{'Value':>5}  {'Class':<{width}}"
    if not dice:
        return [head, *(f"{each['value']:>5}  {each['name']}" for each in card["task"]["classes"])]
    lines = [f"{head}  Dice   HD95 mm  (means of {held_out.get('count', 'some')} cases held out)"]
    for each in card["task"]["classes"]:
        name = each["name"]
        overlap = f"{dice[name]:.3f}" if name in dice else "-"
        away = f"{distance[name]:.2f}" if name in distance else "-"
        lines.append(f"{each['value']:>5}  {name:<{width}}  {overlap:<5}  {away}")
    return lines


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


def _locate(request: ModelsRequest) -> JobResult:
    from ForgettableSegLib.inference.template import with_locator
    from ForgettableSegLib.models.package import ModelPackage
    from ForgettableSegLib.models.registry import find_model

    package = with_locator(
        ModelPackage.read(find_model(request.name)), request.template, request.regions, mask=request.mask
    )
    path = package.write(request.path)
    sentence = f"Wrote '{package.name}' with {len(package.locator.regions)} regions to {path}."
    return JobResult(result={"name": package.name, "path": str(path)}, text=sentence)


def _remove(request: ModelsRequest) -> JobResult:
    from ForgettableSegLib.models.registry import remove

    freed = remove(request.name)
    return JobResult(
        result={"name": request.name, "bytes_freed": freed},
        text=f"Removed '{request.name}' and freed {freed / 2**20:.1f} MB.",
    )


def _classes(card: dict) -> str:
    return ", ".join(each["name"] for each in card["task"]["classes"])
