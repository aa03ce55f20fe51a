"""The networks to compare with: any input size, built again from plain arguments, and no text."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.network.build import NetworkArguments, build_network, transfer_weights
from ForgettableSegLib.training.settings import TrainingSettings

OTHERS = ("attention_unet", "unetr", "nnunet")


def arguments(architecture: str, dims: int = 2, **changes: Any) -> dict[str, Any]:
    """Arguments of a small network."""
    window = {"window": [16] * dims} if architecture == "unetr" else {}
    common = {"spatial_dims": dims, "in_channels": 2, "out_channels": 3, "features": [4, 6, 8], "num_heads": 2}
    return {**common, "architecture": architecture, **window, **changes}


@pytest.mark.parametrize("architecture", OTHERS)
@pytest.mark.parametrize("size", [(16, 16), (5, 23), (1, 1)])
def test_any_size_comes_back(architecture: str, size: tuple[int, int]) -> None:
    network = build_network(arguments(architecture)).train()
    logits, features = network.forward_with_features(torch.randn(2, 2, *size))
    assert logits.shape == (2, 3, *size)
    assert features.shape == (2, 0, *size)
    logits.square().mean().backward()
    unused = {name for name, p in network.named_parameters() if p.grad is None}
    assert all(name.startswith("body.vit.") for name in unused), unused  # MONAI's blocks hold layers for other uses


@pytest.mark.parametrize("architecture", OTHERS)
def test_volumes(architecture: str) -> None:
    network = build_network(arguments(architecture, dims=3)).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 2, 9, 16, 11)).shape == (1, 3, 9, 16, 11)


@pytest.mark.parametrize("architecture", OTHERS)
def test_plain_arguments_and_weights_are_enough_to_build_it_again(architecture: str) -> None:
    stored = json.loads(json.dumps(NetworkArguments.from_dict(arguments(architecture)).to_dict()))
    network = build_network(stored).eval()
    with torch.device("meta"):  # as a model package does it
        again = build_network(stored)
    again.load_state_dict(network.state_dict(), assign=True)
    image = torch.randn(1, 2, 20, 16)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(image), network(image))


@pytest.mark.parametrize("architecture", OTHERS)
def test_other_classes_get_a_new_output_and_keep_the_rest(architecture: str) -> None:
    source, target = build_network(arguments(architecture)), build_network(arguments(architecture, out_channels=3))
    renewed = transfer_weights(source, target, same_classes=False)
    assert renewed, "the output layer belongs to the classes"
    state = source.state_dict()
    kept = {k for k, v in target.state_dict().items() if torch.equal(v, state[k])}
    assert len(kept) >= len(state) - 4


def test_arguments_of_older_models_mean_the_unet() -> None:
    old = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "features": [4, 8], "fusion": "none"}
    assert NetworkArguments.from_dict(old).architecture == "unet"
    assert type(build_network(old)).__name__ == "TextGuidedUNet"


@pytest.mark.parametrize(
    "wrong",
    [
        {"architecture": "mamba"},
        {"features": [4, 8]},
        {"fusion": "residual", "text_shape": [2, 6]},
        {"window": [16, 16]},
        {"architecture": "unetr", "window": None},
        {"architecture": "unetr", "window": [16, 20]},
        {"architecture": "unetr", "window": [16, 16], "num_heads": 3},
    ],
)
def test_arguments_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ForgettableSegError) as caught:
        build_network(arguments(**{"architecture": "nnunet", **wrong}))
    assert caught.value.code == ErrorCode.SETTING_INVALID


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"architecture": "nnunet"}, "tgf"),
        ({"architecture": "nnunet", "tgf": False, "score_features": "penultimate"}, "score_features"),
        ({"architecture": "nnunet", "tgf": False, "context_slices": 1}, "context_slices"),
        ({"architecture": "unetr", "tgf": False}, "patch_size"),
        ({"architecture": "unetr", "tgf": False, "patch_size": [24, 32]}, "patch_size"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ForgettableSegError, match=named) as caught:
        TrainingSettings.from_dict(wrong)
    assert caught.value.code == ErrorCode.SETTING_INVALID
