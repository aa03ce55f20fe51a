"""Neighbouring slices as channels: the same in training and in inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import TASK, write_cases

from ForgettableSegLib.cases.cache import CaseCache
from ForgettableSegLib.cases.preprocessing import plan_preprocessing
from ForgettableSegLib.errors import ForgettableSegError
from ForgettableSegLib.network.build import build_network
from ForgettableSegLib.network.context import with_neighbours
from ForgettableSegLib.network.forward import predict_prepared
from ForgettableSegLib.training.patches import PatchReader


def test_neighbours_surround_a_slice_and_ends_are_repeated() -> None:
    image = np.arange(2 * 5, dtype=np.float32).reshape(2, 5, 1, 1)
    np.testing.assert_array_equal(with_neighbours(image, 0, 5, 0)[:, :, 0, 0], image[:, :, 0, 0].T)
    stacked = with_neighbours(image, 1, 5, 1)[:, :, 0, 0]
    np.testing.assert_array_equal(stacked[0], [0, 1, 2, 5, 6, 7])
    np.testing.assert_array_equal(stacked[3], [3, 4, 4, 8, 9, 9])
    np.testing.assert_array_equal(with_neighbours(image, 0, 1, 2)[0, :5, 0, 0], [0, 0, 0, 1, 2])


@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_patch_and_a_prediction_see_the_same_channels(tmp_path: Path, k: int) -> None:
    cases = write_cases(tmp_path / "cases", 1)
    preprocessing = plan_preprocessing(cases, TASK, spatial_dims=2)
    (case,) = CaseCache(tmp_path / "cache").prepare(cases, TASK, preprocessing)
    depth, height, width = case.label.shape
    reader = PatchReader([case], (height, width), context_slices=k)
    batch = reader.read(torch.tensor([[0, z, 0, 0] for z in range(depth)]))
    assert batch.images.shape == (depth, 2 * k + 1, height, width)
    torch.manual_seed(0)
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "features": [4, 8], "context_slices": k}
    network = build_network(arguments).eval()
    with torch.no_grad():
        expected = network(batch.images)
    found = predict_prepared(
        network, case.image, spatial_dims=2, patch_size=(height, width), device="cpu", batch_size=3
    )
    torch.testing.assert_close(found.transpose(0, 1), expected)


def test_only_2d_unets_take_neighbours() -> None:
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [4, 8], "context_slices": 1}
    with pytest.raises(ForgettableSegError, match="context_slices"):
        build_network(arguments)
