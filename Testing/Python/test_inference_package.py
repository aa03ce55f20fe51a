"""From a model package on the disk to a segmentation, with a real network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.preprocessing import Preprocessing, prepare
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.inference.calibration import calibrate
from ForgettableSegLib.inference.predictor import Predictor
from ForgettableSegLib.inference.scoring import feature_kind
from ForgettableSegLib.mining.prototypes import Prototypes, centred
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.build import build_network

TASK = Task("toy", "MR", ("T1",), (SegmentClass("left", 1), SegmentClass("right", 5)))
GEOMETRY = Geometry((21, 26, 7), (1.0, 1.0, 3.0), (4.0, 5.0, 6.0), (1, 0, 0, 0, -1, 0, 0, 0, -1))


class Held:
    def __init__(self, image: np.ndarray, label: np.ndarray) -> None:
        self.image, self.label = image, label

    def release(self) -> None:
        pass


def make_package(path: Path, image: np.ndarray, *, spatial_dims: int, features: str) -> ModelPackage:
    """An untrained network with prototypes and calibration from the one image, written and read again."""
    torch.manual_seed(0)
    arguments = {"spatial_dims": spatial_dims, "in_channels": 1, "out_channels": 3, "features": [8, 12, 16]}
    network = build_network(arguments).half().float().eval()
    spacing = (None, 1.0, 1.0) if spatial_dims == 2 else (3.0, 1.0, 1.0)
    preprocessing = Preprocessing(spatial_dims, "MR", 0, spacing)
    prepared = prepare(image, GEOMETRY, preprocessing)
    patch = list(prepared.image.shape[-spatial_dims:])
    inputs = torch.from_numpy(prepared.image)
    batch = inputs[None] if spatial_dims == 3 else inputs.transpose(0, 1)
    with torch.no_grad():
        logits, penultimate = network.forward_with_features(batch)
    labels = logits.argmax(1)
    means = penultimate if features == "penultimate" else centred(logits)
    prototypes = Prototypes(3, means.shape[1])
    prototypes.update(means, labels)
    held = Held(prepared.image, labels.reshape(prepared.image.shape[1:]).numpy().astype(np.uint8))
    settings = {"score_mode": "bounded", "score_features": features}
    histograms = calibrate(
        network,
        prototypes,
        [held],
        spatial_dims=spatial_dims,
        patch_size=patch,
        device="cpu",
        features=feature_kind(settings),
    )
    card = {
        "name": "toy",
        "task": TASK.to_dict(),
        "preprocessing": preprocessing.to_dict(),
        "network": arguments,
        "patch_size": patch,
        "training": settings,
    }
    package = ModelPackage.assemble(card, network, prototypes=prototypes.state_dict(), calibration=histograms)
    return ModelPackage.read(package.write(path))


@pytest.mark.parametrize("features", ["logits", "penultimate"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_package_segments_as_its_network_does(spatial_dims: int, features: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(1, 100, (1, *GEOMETRY.shape)).astype(np.float32)
    package = make_package(tmp_path / "toy.zip", image, spatial_dims=spatial_dims, features=features)
    result = Predictor(package).segment_array(image, GEOMETRY, case_id="one")

    prepared = prepare(image, GEOMETRY, package.preprocessing)
    inputs = torch.from_numpy(prepared.image)
    with torch.no_grad():
        logits = package.network()(inputs[None] if spatial_dims == 3 else inputs.transpose(0, 1))
    logits = logits[0] if spatial_dims == 3 else logits.transpose(0, 1)
    expected = prepared.grid.unorient(np.take((0, 1, 5), logits.argmax(0).numpy()))
    np.testing.assert_array_equal(result.labels, expected)
    assert result.labels.dtype == np.uint8

    # The case calibrates itself: over its own dilated foreground, percentiles are uniform.
    assert set(result.difficulty) == {"confidence", "prototype_ratio"}
    near = (result.labels > 0) | (result.difficulty["prototype_ratio"] != result.difficulty["confidence"])
    for values in result.difficulty.values():
        for percentile in (25, 50, 75):
            assert (values[near] < percentile).mean() == pytest.approx(percentile / 100, abs=0.06)
    assert result.review["model"] == "toy"
    audit = Predictor(package).audit_array(image, GEOMETRY, expected, case_id="one")
    assert audit.scores["T4"].max() < 0.7, "the network agrees with itself: p of its own class is the largest"
    assert audit.review["slices"][0]["percentile"] > 50
