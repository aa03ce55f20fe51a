"""The cases and tasks that requests name, read; and the model, loaded once and kept for the next job."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

if TYPE_CHECKING:
    import torch

    from ForgettableSegLib.cases.case import CaseList
    from ForgettableSegLib.cases.task import Task
    from ForgettableSegLib.inference.predictor import Predictor
    from ForgettableSegLib.training.distributed import ProcessGroup

MODELS_KEPT = 2

_predictors: OrderedDict[tuple[str, str, str], Predictor] = OrderedDict()


def load_task(source: str | Mapping[str, Any] | None) -> Task | None:
    """Return the task of a request, or None where it names none.

    Args:
        source: the task itself, or the path of a JSON file with it (or of a ``dataset.json``).

    Raises:
        ForgettableSegError: FILE_MISSING or TASK_INVALID.
    """
    from ForgettableSegLib.cases.task import Task

    if source is None:
        return None
    if isinstance(source, Mapping):
        return Task.from_dict(source)
    path = Path(source)
    if not path.is_file():
        raise ForgettableSegError(ErrorCode.FILE_MISSING, f"The task file {path} does not exist.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        message = f"The task file {path} cannot be read as JSON: {error}."
        raise ForgettableSegError(ErrorCode.TASK_INVALID, message) from error
    except RecursionError as error:
        message = f"The task file {path} cannot be read as JSON: it is nested too deeply."
        raise ForgettableSegError(ErrorCode.TASK_INVALID, message) from error
    if isinstance(content, Mapping) and "labels" in content and "classes" not in content:
        return Task.from_dataset(content, name=path.parent.name)
    return Task.from_dict(content)


def require_task(task: Task | None, source: object) -> Task:
    """Return ``task``, or say that there has to be one.

    Raises:
        ForgettableSegError: TASK_INVALID.
    """
    if task is None:
        message = f"{source} does not say what its label values mean."
        hint = (
            "Write a task into a file and give it with --task, a class for each of your label values: "
            '{"name": "abdomen", "modality": "MR", "channels": ["T2"], '
            '"classes": [{"name": "liver", "value": 1}, {"name": "spleen", "value": 2}]}'
        )
        raise ForgettableSegError(ErrorCode.TASK_INVALID, message, hint=hint)
    return task


def load_cases(cases: str | tuple[Mapping[str, Any], ...], task: Task | None = None) -> CaseList:
    """Return the cases of a request; no image is looked at.

    Args:
        cases: path of a case list, or the cases themselves.
        task: takes precedence over the task that the case list holds.

    Raises:
        ForgettableSegError: FILE_MISSING, CASE_LIST_INVALID or TASK_INVALID.
    """
    from dataclasses import replace

    from ForgettableSegLib.cases.case_list import cases_from_dicts, read_case_list

    if isinstance(cases, str):
        found = read_case_list(cases, task=task)
    else:
        found = cases_from_dicts(cases)
        found = found if task is None else replace(found, task=task)
    seen: set[str] = set()
    for case in found:
        if case.case_id in seen:
            message = f"The case list {cases if isinstance(cases, str) else ''} holds the id '{case.case_id}' twice."
            hint = "Give each case an id of its own; it names the folder of results."
            raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, message, hint=hint)
        seen.add(case.case_id)
    return found


def rank_device(name: str, group: ProcessGroup) -> torch.device:
    """Return the device of this rank: under torchrun each has a GPU of its own.

    Args:
        name: auto, cpu, mps, cuda or cuda:<number>.
        group: the ranks of the job.

    Raises:
        ForgettableSegError: DEVICE_UNAVAILABLE.
    """
    import torch

    from ForgettableSegLib.inference.device import resolve_device

    device = resolve_device(name)
    return torch.device("cuda", group.local_rank) if group.is_distributed and device.type == "cuda" else device


def load_predictor(model: str, device: str) -> Predictor:
    """Return a model ready to compute; the last ones stay loaded for the next job, as long as their files are the same.

    Args:
        model: name of an installed model, or path of a package.
        device: auto, cpu, mps, cuda or cuda:<number>.

    Raises:
        ForgettableSegError: MODEL_MISSING, MODEL_INVALID or DEVICE_UNAVAILABLE.
    """
    from ForgettableSegLib.inference.device import resolve_device
    from ForgettableSegLib.inference.predictor import Predictor
    from ForgettableSegLib.models.package import ModelPackage
    from ForgettableSegLib.models.registry import find_model

    path = find_model(model).resolve()
    resolved = resolve_device(device)
    key = (str(path), _content_key(path), str(resolved))
    if key not in _predictors:
        _predictors[key] = Predictor(ModelPackage.read(path), resolved)
        while len(_predictors) > MODELS_KEPT:
            _predictors.popitem(last=False)
    _predictors.move_to_end(key)
    return _predictors[key]


def forget_predictors() -> None:
    """Give the memory of the models back, before a training needs it."""
    _predictors.clear()


def _content_key(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
