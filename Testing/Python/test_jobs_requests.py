"""Requests: each job's arguments, checked before anything is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.requests import REQUESTS, TrainRequest, make_request

CASES = [
    {"id": "a", "images": ["a.nrrd"], "label": "l.nrrd", "group": "p"},
    {"id": "b", "images": ["b0.nii", "b1.nii"]},
]
VALID: list[tuple[str, dict[str, Any]]] = [
    ("segment", {"model": "m", "input": "in", "output": "out"}),
    ("segment", {"model": "m", "cases": CASES, "output": "out", "region": [[0, 1, 2], [4, 4, 4]]}),
    ("segment", {"model": "m", "cases": "list.csv", "output": "out", "device": "cuda:1", "file_format": ".nii.gz"}),
    ("train", {"cases": CASES, "run": "run", "task": {"name": "t"}, "settings": {"iterations": 3}}),
    ("finetune", {"cases": "data", "run": "run", "model": "m", "name": "mine"}),
    ("resume", {"run": "run"}),
    ("evaluate", {"predictions": "p", "references": "r", "compare": "q", "output": "o", "convention": "medpy"}),
    ("evaluate", {"model": "m", "cases": CASES, "output": "o"}),
    ("audit", {"model": "m", "cases": CASES, "output": "o"}),
    ("validate", {"cases": "data", "task": "task.json"}),
    ("models", {"action": "list"}),
    ("models", {"action": "export", "name": "m", "path": "m.zip"}),
    ("check", {}),
    ("demo", {}),
    ("experiment", {"plan": "mini", "cases": CASES, "output": "o", "shard": "2/3", "seeds": [0, 1], "iterations": 5}),
    ("experiment", {"plan": "p.json", "cases": "data", "output": "o", "variants": ["a", "b"], "settings": {"rho": 1}}),
    ("figures", {"run": "run", "output": "o", "cases": 2}),
    ("forgetting", {"run": "run", "output": "o", "images": False}),
    ("suspects", {"run": "run", "output": "o", "budget": 20}),
    ("suspects", {"model": "m", "cases": CASES, "output": "o"}),
    ("rank", {"model": "m", "cases": "images", "output": "o", "budget": 3}),
]


def test_every_job_is_tried() -> None:
    assert {job for job, _ in VALID} == set(REQUESTS)


@pytest.mark.parametrize(("job", "arguments"), VALID)
def test_a_valid_request_keeps_its_arguments(job: str, arguments: dict[str, Any]) -> None:
    request = make_request(job, arguments)
    assert request.is_valid() == (True, "")
    assert arguments.items() <= request.to_dict().items()
    assert make_request(job, request.to_dict()) == request


def segment(**changes: Any) -> tuple[str, dict[str, Any]]:
    return "segment", {"model": "m", "input": "in", "output": "out", **changes}


def segment_cases(cases: Any) -> tuple[str, dict[str, Any]]:
    return "segment", {"model": "m", "cases": cases, "output": "out"}


WRONG: list[tuple[tuple[str, dict[str, Any]], str]] = [
    (("dance", {}), "no job 'dance'"),
    (segment(modell="m"), "Did you mean 'model'"),
    (segment(colour="red"), "no argument 'colour'"),
    (("segment", {"model": "m", "input": "in"}), "needs the argument 'output'"),
    (("segment", {"model": "m", "output": "out"}), "either the argument 'cases' or the argument 'input'"),
    (segment(cases=CASES), "either the argument 'cases' or the argument 'input'"),
    (segment(model=""), "'model'"),
    (segment(model=None), "'model'"),
    (segment(model=3), "'model'"),
    (segment(output="a\0b"), "zero character"),
    (segment(heatmap="yes"), "'heatmap'.*true or false"),
    (segment(probabilities=1), "'probabilities'.*true or false"),
    (segment(device="gpu"), "'device'"),
    (segment(device="cuda:"), "'device'"),
    (segment(device="cuda:-1"), "'device'"),
    (segment(file_format=".jpg"), "'file_format'.*nrrd"),
    (segment(region=[1, 2, 3]), "'region'"),
    (segment(region=[[0, 0, 0], [1, 1, 0]]), "'region'"),
    (segment(region=[[0, 0, -1], [1, 1, 1]]), "'region'"),
    (segment(region=[[0, 0, 0.5], [1, 1, 1]]), "'region'"),
    (segment(region="all"), "'region'"),
    (segment_cases([]), "'cases'.*not empty"),
    (segment_cases({"id": "a"}), "'cases'"),
    (segment_cases(["a.nii"]), "case 1.*JSON object"),
    (segment_cases([{"images": ["a"]}]), "case 1.*id"),
    (segment_cases([{"id": 3, "images": ["a"]}]), "case 1.*id"),
    (segment_cases([{"id": "../a", "images": ["a"]}]), "cannot name a folder"),
    (segment_cases([{"id": "..", "images": ["a"]}]), "cannot name a folder"),
    (segment_cases([{"id": "a"}]), "images of 'a'"),
    (segment_cases([{"id": "a", "images": []}]), "images of 'a'"),
    (segment_cases([{"id": "a", "images": "a.nii"}]), "images of 'a'"),
    (segment_cases([{"id": "a", "images": ["a", 3]}]), "images of 'a'"),
    (segment_cases([{"id": "a", "images": ["a"], "label": 3}]), "label of 'a'"),
    (segment_cases([{"id": "a", "images": ["a"], "mask": "m"}]), "'mask' is unknown"),
    (segment_cases([CASES[0], CASES[0]]), "holds the id 'a' twice"),
    (("train", {"cases": CASES, "run": "r", "settings": [1]}), "'settings'"),
    (("train", {"cases": CASES, "run": "r", "task": 3}), "'task'"),
    (("finetune", {"cases": CASES, "run": "r"}), "needs the argument 'model'"),
    (("resume", {}), "needs the argument 'run'"),
    (("evaluate", {"output": "o"}), "either 'predictions' and 'references', or 'model' and 'cases'"),
    (("evaluate", {"output": "o", "predictions": "p"}), "either 'predictions'"),
    (("evaluate", {"output": "o", "predictions": "p", "cases": CASES}), "either 'predictions'"),
    (("evaluate", {"output": "o", "predictions": "p", "references": "r", "model": "m"}), "either 'predictions'"),
    (("evaluate", {"output": "o", "model": "m", "cases": CASES, "compare": "q"}), "'compare' only together"),
    (("evaluate", {"output": "o", "predictions": "p", "references": "r", "convention": "mine"}), "'convention'"),
    (("models", {"action": "burn"}), "'action'"),
    (("models", {"action": "show"}), "needs the argument 'name'"),
    (("models", {"action": "install", "name": "m"}), "needs the argument 'path'"),
    (("models", {"action": "export", "name": "m"}), "needs the argument 'path'"),
    (("check", {"device": None}), "'device'"),
]


@pytest.mark.parametrize(("asked", "sentence"), WRONG)
def test_a_wrong_request_is_refused_by_name(asked: tuple[str, dict[str, Any]], sentence: str) -> None:
    with pytest.raises(ForgettableSegError, match=sentence) as caught:
        make_request(*asked)
    assert caught.value.code == ErrorCode.REQUEST_INVALID


def test_a_request_made_in_python_says_itself_what_is_wrong() -> None:
    valid, reason = TrainRequest(cases=(), run="r").is_valid()
    assert not valid
    assert "'cases'" in reason


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


def refusal(job: str, arguments: dict[str, Any]) -> ForgettableSegError | None:
    """The error that refuses a request, if it is refused; any other error is raised."""
    try:
        make_request(job, arguments)
    except ForgettableSegError as error:
        return error
    return None


@given(st.sampled_from(sorted(REQUESTS)), st.data())
def test_arguments_of_any_kind_are_taken_or_refused_by_a_sentence(job: str, data: st.DataObject) -> None:
    names = st.sampled_from(sorted(REQUESTS[job].__dataclass_fields__))
    arguments = data.draw(st.dictionaries(names, ANYTHING))
    error = refusal(job, arguments)
    if error is None:
        request = make_request(job, arguments)
        assert make_request(job, request.to_dict()) == request
    else:
        assert error.code == ErrorCode.REQUEST_INVALID
