"""Cards and tensors that are wrong, or do not belong together, are refused, each with a sentence of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from small_models import edit_card, make_package, put_weights, refuse

from ForgettableSegLib.models.package import ModelPackage

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good package."""
    return make_package().write(tmp_path / "abdomen")


def put_tensors(folder: Path, change: Callable[[Tensors], Any]) -> None:
    """Change the tensors, with a card that agrees."""
    tensors = load_file(folder / "weights.safetensors")
    change(tensors)
    put_weights(folder, save(tensors))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("network.output.bias"), r"tensor 'network\.output\.bias' is missing"),
        (lambda t: t.update({"network.output.bias": torch.zeros(4)}), r"shape \(4,\).*arguments ask for \(3,\)"),
        (lambda t: t.update({"prototypes.mean": torch.zeros(3, 5)}), r"prototypes\.mean' has shape"),
        (lambda t: t.update({"prototypes.mean": torch.tensor(1.0)}), r"prototypes\.mean' has shape"),
        (lambda t: t.pop("prototypes.count"), r"'prototypes\.count' is missing"),
        (lambda t: t.update({"network.more": torch.zeros(1)}), r"does not belong to a model, 'network\.more'"),
        (lambda t: t.update({"patch": torch.zeros(1, 16, 16)}), "does not belong to a model, 'patch'"),
        (lambda t: t.update({"calibration.x": torch.zeros(5000)}), r"does not belong to a model, 'calibration\.x'"),
        (lambda t: t["network.output.bias"].fill_(torch.nan), r"'network\.output\.bias' holds numbers that are not"),
        (lambda t: t["prototypes.mean"].fill_(torch.inf), r"'prototypes\.mean' holds numbers that are not"),
        (lambda t: t["prototypes.variance"].fill_(-1), r"'prototypes\.variance' holds negative"),
    ],
)
def test_tensors_that_do_not_fit(folder: Path, change: Callable[[Tensors], Any], sentence: str) -> None:
    put_tensors(folder, change)
    refuse(folder, sentence)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b'{"schema": NaN}',
        b'{"schema": ' + b"9" * 5000 + b"}",
    ],
)
def test_card_that_is_not_json(folder: Path, text: bytes) -> None:
    (folder / "model.json").write_bytes(text)
    refuse(folder, r"model\.json is not JSON")


def test_card_that_is_not_an_object(folder: Path) -> None:
    (folder / "model.json").write_text("[1, 2]")
    refuse(folder, "is not a JSON object")


@pytest.mark.parametrize("schema", [0, 2, "1", None, True, [1]])
def test_unknown_schema_version(folder: Path, schema: Any) -> None:
    edit_card(folder, lambda card: card.update(schema=schema))
    refuse(folder, "schema version .*Update ForgettableSeg")


@pytest.mark.parametrize("key", ["name", "task", "preprocessing", "network", "patch_size"])
@pytest.mark.parametrize("value", [None, 3, "absent"])
def test_card_without_or_with_the_wrong_kind_of_entry(folder: Path, key: str, value: Any) -> None:
    if value == "absent":
        edit_card(folder, lambda card: card.pop(key))
        refuse(folder, f"lacks '{key}'")
    else:
        edit_card(folder, lambda card: card.update({key: value}))
        refuse(folder, f"'{key}' in its model.json is not")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"code": "print(1)"}, "unknown entry 'code'"),
        ({"name": "../../evil"}, "cannot be the name"),
        ({"patch_size": [16]}, "axes of patch_size"),
        ({"patch_size": [16, 0]}, "patch_size"),
        ({"patch_size": [16, 10**9]}, "patch_size"),
        ({"text": {"prompts": ["one"]}}, "foreground classes and text prompts"),
        ({"text": {"prompts": 7}}, "not a list of texts"),
        ({"text": {"prompts": [1, 2]}}, "not a list of texts"),
        ({"files": {}}, "does not name the files"),
        ({"files": None}, "does not name the files"),
        ({"files": {"weights.safetensors": {}, "README.md": {}}}, "lacks the hash or the size"),
    ],
)
def test_card_that_contradicts_itself(folder: Path, changes: dict[str, Any], sentence: str) -> None:
    edit_card(folder, lambda card: card.update(changes))
    refuse(folder, sentence)


@pytest.mark.parametrize(
    ("part", "changes", "sentence"),
    [
        ("task", {"classes": []}, "no class"),
        ("task", {"channels": ["T1", "T2"]}, "channels of the task and inputs"),
        ("task", {"classes": [{"name": "liver", "value": 1}]}, "classes of the task and outputs"),
        ("task", {"classes": 5}, "must be a list"),
        ("preprocessing", {"spatial_dims": 3}, "dimensions of preprocessing"),
        ("preprocessing", {"spacing": "abc"}, "wrong type"),
        ("preprocessing", {"version": 99}, "version 99"),
        ("network", {"features": [10**9, 10**9]}, "features"),
        ("network", {"depth": 3}, "'depth'"),
        ("network", {"features": [4, 8, 16]}, r"tensor 'network\.\S+' (is missing|has shape)"),
        ("network", {"features": [4096] * 10, "num_heads": 1}, r"tensor 'network\.\S+' (is missing|has shape)"),
    ],
)
def test_parts_of_the_card(folder: Path, part: str, changes: dict[str, Any], sentence: str) -> None:
    edit_card(folder, lambda card: card[part].update(changes))
    refuse(folder, sentence)


def test_number_too_large_to_be_one(folder: Path) -> None:
    path = folder / "model.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"mean": 0.9', '"mean": 1e999'), encoding="utf-8")
    refuse(folder, r"'metrics\.held_out\.mean' in its model\.json is not text or a finite number")


def test_card_nested_without_end(folder: Path) -> None:
    nested: list[Any] = []
    for _ in range(200):
        nested = [nested]
    edit_card(folder, lambda card: card.update(metrics={"a": nested}))
    refuse(folder, "nested more than")


def test_safetensors_metadata_is_ignored(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    save_file(tensors, tmp_path / "w", metadata={"note": "x"})
    put_weights(folder, (tmp_path / "w").read_bytes())
    written = ModelPackage.read(folder).write(tmp_path / "again")
    assert b"note" not in (written / "weights.safetensors").read_bytes()[:2000]
