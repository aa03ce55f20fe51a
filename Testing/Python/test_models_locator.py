"""What a package says of its field of view and its locator is checked before it is used, whoever wrote it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import make_card, make_package, refuse

from ForgettableSegLib.errors import ForgettableSegError
from ForgettableSegLib.models.field_of_view import FieldOfView
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.models.regions import TEMPLATE

LOCATOR = {
    "spacing": [4.0, 4.0, 4.0],
    "origin": [0.0, 0.0, 0.0],
    "regions": [
        {"name": "left", "box": [[0, 0, 0], [20, 20, 20]], "side": "left", "mirror": False},
        {"name": "right", "box": [[-20, 0, 0], [0, 20, 20]], "side": "right", "mirror": True},
    ],
    "threshold": 0.4,
}
LEARNT = {
    "extent_mm": [[30, 36, 40], [40, 50, 55], [30, 36, 40]],
    "spacing_mm": [[1, 1, 1]] * 3,
    "intensity": [0.4, 0.5, 0.6],
    "classes": {"liver": {"volume_ml": [900, 1200, 1800], "share": [0.1, 0.2, 0.3], "pieces": [1, 1, 2]}},
}


def template(*shape: int) -> torch.Tensor:
    return torch.arange(1, 1 + torch.Size(shape).numel()).remainder(251).to(torch.uint8).reshape(shape)


def package(locator: Any = LOCATOR, values: torch.Tensor | None = None, **card: Any) -> ModelPackage:
    made = make_package()
    tensors = {**made.tensors, TEMPLATE: template(12, 12, 12) if values is None else values}
    return ModelPackage(make_card(locator=locator, **card), tensors)


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = package(field_of_view=LEARNT, keep_largest=["spleen"])
    for name in ("model", "model.zip"):
        read = ModelPackage.read(written.write(tmp_path / name))
        assert read.tensors[TEMPLATE].dtype == torch.uint8
        assert torch.equal(read.tensors[TEMPLATE], template(12, 12, 12))
        assert read.locator == written.locator
        assert read.locator.regions[1].mirror
        assert read.field_of_view.classes["liver"]["volume_ml"] == (900, 1200, 1800)


def test_one_half_of_a_locator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForgettableSegError, match="only one half of a locator"):
        ModelPackage(make_card(locator=LOCATOR), make_package().tensors)
    with pytest.raises(ForgettableSegError, match="only one half of a locator"):
        ModelPackage(make_card(), package().tensors)


@pytest.mark.parametrize(
    "values",
    [
        template(68, 67, 67),
        template(12, 12),
        template(4, 12, 12),
        template(12, 12, 12).float(),
        torch.zeros(9, 9, 9, dtype=torch.uint8),
    ],
    ids=["too large", "flat", "thin", "floats", "empty"],
)  # fmt: skip
def test_templates_that_are_none_are_refused(values: torch.Tensor) -> None:
    with pytest.raises(ForgettableSegError, match="the template of its locator"):
        package(values=values)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spacing",), [8.0, 4.0, 4.0]),
        (("spacing",), [0.0, 4.0, 4.0]),
        (("spacing",), "444"),
        (("origin",), [1e9, 0, 0]),
        (("threshold",), 0),
        (("threshold",), True),
        (("regions",), []),
        (("regions",), [LOCATOR["regions"][0]] * 2),
        (("regions",), [LOCATOR["regions"][0]] * 400),
        (("regions", 0, "side"), None),
        (("regions", 0, "side"), "right"),
        (("regions", 0, "mirror"), 1),
        (("regions", 0, "name"), ""),
        (("regions", 0, "box"), [[0, 0, 0], [0, 0, 0]]),
        (("regions", 0, "box"), [[0, 0, 0], [5000, 20, 20]]),
        (("regions", 0, "box"), [[0, 0], [20, 20]]),
        (("regions", 0, "box"), None),
        (("regions", 0), "left"),
        (("script",), "import os"),
    ],
)
def test_locators_that_are_none_are_refused(path: tuple, value: Any) -> None:
    locator = copy.deepcopy(LOCATOR)
    place = locator
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ForgettableSegError, match="The locator"):
        package(locator)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("extent_mm", [[1, 2, 3]] * 2),
        ("extent_mm", [[3, 2, 1]] * 3),
        ("spacing_mm", [[1, 1, 1e9]] * 3),
        ("intensity", ["a", "b", "c"]),
        ("intensity", [True, True, True]),
        ("classes", []),
        ("classes", {"liver": {"volume_ml": [1, 2, 3]}}),
        ("cases", ["one"]),
    ],
)
def test_what_cannot_have_been_measured_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ForgettableSegError, match="What a model has learnt"):
        ModelPackage(make_card(field_of_view={**LEARNT, key: value}), make_package().tensors)


def test_pieces_of_a_class_that_is_none_are_refused() -> None:
    with pytest.raises(ForgettableSegError, match="keep_largest"):
        ModelPackage(make_card(keep_largest=["kidney"]), make_package().tensors)


def test_a_template_changed_after_it_was_written_is_refused(tmp_path: Path) -> None:
    folder = package().write(tmp_path / "model")
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refuse(folder, "was changed after it was written")


def test_volumes_are_judged_by_their_extent() -> None:
    learnt = FieldOfView.from_dict(LEARNT)
    assert not learnt.is_too_large((40, 80, 40))
    assert learnt.is_too_large((36, 50, 65))
    message = learnt.refusal((196.6, 233, 189)).message
    assert (
        message
        == "This model has learnt volumes of about 36 x 50 x 36 mm; this one is 197 x 233 x 189 mm. Choose a region."
    )


def test_results_are_judged_by_volume_and_pieces() -> None:
    learnt = FieldOfView.from_dict(LEARNT)
    assert learnt.surprises("liver", "liver", 1000, 2) == []
    assert learnt.surprises("left liver", "liver", 100, 1) == [
        "Left liver has 100.00 ml; this model has learnt 900.00 to 1800.00 ml."
    ]
    assert learnt.surprises("liver", "liver", 1000, 9) == ["Liver lies in 9 pieces; this model has learnt 2 at most."]
    assert learnt.surprises("kidney", "kidney", 1, 1) == []
