"""Small models for tests, and ways to spoil them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.build import build_network

PROMPTS = ["A magnetic resonance imaging of a liver", "A magnetic resonance imaging of a spleen"]


def make_card(**changes: Any) -> dict[str, Any]:
    """A card of a tiny 2D model of two structures."""
    card = {
        "schema": 1,
        "name": "abdomen",
        "title": "Abdomen",
        "description": "Liver/spleen on T2 MR, e.g. 1.25 x 1.25 mm; see https://example.org/data/set.html",
        "licence": "CC-BY-SA 4.0",
        "attribution": "A data set (arXiv 1902.09063)",
        "task": {
            "name": "abdomen",
            "modality": "MR",
            "channels": ["T2"],
            "classes": [{"name": "liver", "value": 1}, {"name": "spleen", "value": 4}],
        },
        "preprocessing": {"spatial_dims": 2, "modality": "MR", "slice_axis": 0, "spacing": [None, 1.25, 1.25]},
        "network": {
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 3,
            "features": [4, 8],
            "fusion": "visual_query",
            "text_shape": [2, 6],
            "num_heads": 2,
            "distributions": False,
            "memory": False,
            "prototypes": 0,
        },
        "text": {"source": "file", "encoder": "sentence-transformers/all-MiniLM-L6-v2", "prompts": PROMPTS},
        "preset": "recommended",
        "patch_size": [16, 16],
        "training": {"iterations": 10, "loss": "dice_ce", "text_path": None, "prototypes": "ema"},
        "provenance": {"cases": 12, "command": "forgettableseg train --cases data --run runs/abdomen"},
        "metrics": {"held_out": {"mean": 0.9, "liver": 0.95, "spleen": None}},
    }
    return card | changes


def make_package(seed: int = 0, **changes: Any) -> ModelPackage:
    """A whole package with random weights."""
    torch.manual_seed(seed)
    card = make_card(**changes)
    network = build_network(card["network"])
    if network.fusion.mode != "none":
        network.set_text(torch.nn.functional.normalize(torch.randn(2, 6), dim=1))
    return ModelPackage.assemble(
        card,
        network,
        prototypes={"mean": torch.randn(3, 3), "variance": torch.rand(3), "count": torch.tensor([40, 30, 2])},
        calibration={"confidence_voxel": torch.rand(64)},
        documents={"README.md": "# Abdomen\nMean Dice 0.9 on 2 held-out volumes.\n"},
    )


def refuse(path: Path, sentence: str) -> None:
    """Reading fails with one sentence that names the package and the reason, and leaves nothing behind."""
    around = {entry for entry in path.parent.rglob("*")}
    with pytest.raises(ForgettableSegError, match=sentence) as caught:
        ModelPackage.read(path)
    assert caught.value.code == ErrorCode.MODEL_INVALID
    assert path.name in caught.value.message
    assert "\n" not in str(caught.value)
    assert {entry for entry in path.parent.rglob("*")} == around


def edit_card(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the card as its author could."""
    path = folder / "model.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    edit(card)
    path.write_text(json.dumps(card), encoding="utf-8")


def put_weights(folder: Path, content: bytes) -> None:
    """Replace the weights and state their new hash, as whoever makes a package can."""
    (folder / "weights.safetensors").write_bytes(content)
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit_card(folder, lambda card: card["files"].update({"weights.safetensors": facts}))


def zip_of(folder: Path, extra: dict[str | zipfile.ZipInfo, bytes] | None = None, prefix: str = "") -> Path:
    """An archive of a package, with more entries."""
    path = folder.parent / "packed.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, prefix + file.name)
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return path
