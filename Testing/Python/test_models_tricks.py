"""Packages made to harm: what they ask for is refused before anything is allocated, waited for or taken for another."""

from __future__ import annotations

import json
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from case_volumes import save
from job_inputs import run
from safetensors.torch import save as save_tensors
from small_models import edit_card, make_package, put_weights, refuse, zip_of

from ForgettableSegLib.memory import peak_memory
from ForgettableSegLib.models.package import ModelPackage

ALLOWED_MB = 300


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good package."""
    return make_package().write(tmp_path / "abdomen")


@pytest.fixture
def frugal() -> Iterator[None]:
    """The test must take neither much memory nor long."""
    before, began = peak_memory(), time.process_time()
    yield
    assert peak_memory() - before < ALLOWED_MB * 2**20
    assert time.process_time() - began < 20


# --- more than any machine has ---

LARGEST = {"features": [4096] * 10, "num_heads": 1}


@pytest.mark.parametrize(
    "network",
    [
        LARGEST,  # terabytes of weights
        {**LARGEST, "spatial_dims": 3},
        {"text_shape": [2, 65536], **LARGEST},
        {"in_channels": 1024, "out_channels": 1024, **LARGEST},
        {"architecture": "nnunet", "fusion": "none", **LARGEST},
        {"architecture": "attention_unet", "fusion": "none", **LARGEST},
    ],
)
@pytest.mark.usefixtures("frugal")
def test_network_of_terabytes(folder: Path, network: dict[str, Any]) -> None:
    edit_card(folder, lambda card: card["network"].update(network))
    refuse(folder, "cannot be used")


@pytest.mark.usefixtures("frugal")
def test_patch_of_terabytes(folder: Path) -> None:
    def ask(card: dict[str, Any]) -> None:
        card["network"]["spatial_dims"] = card["preprocessing"]["spatial_dims"] = 3
        card["preprocessing"]["spacing"] = [1.0, 1.0, 1.0]
        card["patch_size"] = [4096, 4096, 4096]

    edit_card(folder, ask)
    refuse(folder, "patch_size .* has more voxels than any network")


@pytest.mark.parametrize("step", [0, -1, 1e-30, 1e-320, 1e30])
def test_spacing_that_no_scanner_has(folder: Path, step: float) -> None:
    edit_card(folder, lambda card: card["preprocessing"].update(spacing=[None, step, step]))
    refuse(folder, "spacing must be three numbers")


@pytest.mark.usefixtures("frugal")
def test_spacing_that_would_fill_the_memory_fails_the_case_alone(folder: Path, tmp_path: Path) -> None:
    edit_card(folder, lambda card: card["preprocessing"].update(spacing=[None, 1e-4, 1e-4]))
    image = save(tmp_path / "image.nrrd", np.arange(512, dtype=np.float32).reshape(2, 16, 16))
    cases = [{"id": "a", "images": [str(image)]}]
    done, events = run("segment", model=str(folder), cases=cases, output=str(tmp_path / "out"), device="cpu")
    assert done.exit_code == 1
    (failed,) = (event for event in events if event["event"] == "case_failed")
    assert failed["code"] == "CASE_INVALID"
    assert "2 x 160000 x 160000 voxels" in failed["text"]


@pytest.mark.parametrize("statistics", [[[0, 0]], [[0, -1]], [["a", "b"]], [[0]], "ab", [[None, 1]], [[0, 1e999]]])
def test_intensity_statistics_that_are_none(folder: Path, statistics: Any) -> None:
    edit_card(folder, lambda card: card["preprocessing"].update(modality="CT", ct_statistics=statistics))
    refuse(folder, "cannot be used")


# --- one thing taken for another ---


@pytest.mark.parametrize(
    "name",
    [
        "MODEL.JSON",
        "model.json ",
        "model.json.",
        "model\u200b.json",
        "\uff4dodel.json",
        "model.json\u202egnp",
        "mo\u0308del.json",
        "CON",
        "weights.safetensors:stream",
        "inner/model.json",
        "weights.safetensors/x",
        "\x1bmodel.json",
    ],
)
def test_name_that_looks_like_another(folder: Path, name: str) -> None:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    refuse(zip_of(folder, {info: b"{}"}), "does not belong to a model")


def test_same_name_in_another_case_beside_a_whole_package(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refuse(zip_of(folder, {"Weights.safetensors": b""}), r"'Weights\.safetensors'")


def test_second_folder_in_an_archive(folder: Path) -> None:
    path = zip_of(folder, prefix="abdomen/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/model.json", "{}")
    refuse(path, "does not belong to a model")


def test_archive_with_a_password(folder: Path) -> None:
    path = zip_of(folder)
    content = bytearray(path.read_bytes())
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            content[at + flags_at] |= 1
    path.write_bytes(content)
    refuse(path, "damaged .*password")


def test_archive_of_an_unknown_compression(folder: Path) -> None:
    path = zip_of(folder)
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    content[at + 10 : at + 12] = b"\x63\0"
    path.write_bytes(content)
    refuse(path, "damaged")


# --- what would be waited for, or is no file ---


@pytest.mark.timeout(20)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["README.md", "weights.safetensors", "model.json"])
def test_pipe_in_place_of_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refuse(folder, f"'{name}' is not a file")


@pytest.mark.timeout(20)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_in_place_of_a_package(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.zip")
    refuse(tmp_path / "model.zip", "neither a folder nor a zip archive")


def test_folder_in_place_of_a_file(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    refuse(folder, r"'README\.md' is not a file")


# --- headers of safetensors that lie ---

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": {**ONE, "shape": [2**62]}},
        {"a": {**ONE, "shape": [2**32, 2**32, 2**32]}},
        {"a": {**ONE, "shape": [-1]}},
        {"a": {**ONE, "data_offsets": [4, 0]}},
        {"a": {**ONE, "data_offsets": [0, 2**63]}},
        {"a": ONE, "b": ONE},
        {"a": {**ONE, "data_offsets": [2, 6]}},
        {"a": {**ONE, "dtype": "PICKLE"}},
        {"__metadata__": {"a": 1}},
        {"a": [[[[]]]]},
    ],
)
@pytest.mark.usefixtures("frugal")
def test_header_that_lies(folder: Path, header: dict[str, Any]) -> None:
    content = json.dumps(header).encode()
    put_weights(folder, len(content).to_bytes(8, "little") + content + bytes(8))
    refuse(folder, "not a whole safetensors file")


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card.update(name="x" * 10_000),
        lambda card: card["task"].update(classes=[{"name": f"c{n}", "value": n} for n in range(1, 5000)]),
        lambda card: card["network"].update(out_channels=10**30),
        lambda card: card["network"].update(features=[4, True]),
        lambda card: card["network"].update(num_heads=0),
        lambda card: card["network"].update(dropout=-1),
        lambda card: card["task"]["classes"][0].update(value=10**30),
        lambda card: card["preprocessing"].update(slice_axis=7),
        lambda card: card.update(schema=10**30),
    ],
)
@pytest.mark.usefixtures("frugal")
def test_number_or_text_without_measure(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    edit_card(folder, change)
    refuse(folder, "cannot be used")


def test_a_great_many_tensors_are_read_in_time(folder: Path) -> None:
    package = ModelPackage.read(folder)
    many = dict(package.tensors) | {f"calibration.{number}": torch.ones(1) for number in range(2000)}
    put_weights(folder, save_tensors(many))
    began = time.process_time()
    assert len(ModelPackage.read(folder).calibration) == 2001
    assert time.process_time() - began < 5
