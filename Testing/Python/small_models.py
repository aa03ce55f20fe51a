"""Small models for tests."""

from __future__ import annotations

from typing import Any

import torch

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
        },
        "text": {"source": "file", "encoder": "sentence-transformers/all-MiniLM-L6-v2", "prompts": PROMPTS},
        "preset": "recommended",
        "patch_size": [16, 16],
        "training": {"iterations": 10, "loss": "dice_ce", "text_path": None},
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
