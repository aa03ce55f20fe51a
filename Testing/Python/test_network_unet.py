"""The U-Net takes any size, is rebuilt from plain arguments, and hands its weights on."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.network.blocks import SLOPE, Convolutions, Down, Up
from ForgettableSegLib.network.build import NetworkArguments, build_network, transfer_weights
from ForgettableSegLib.network.unet import TextGuidedUNet

FEATURES = [4, 8, 16]
MODES = ["none", "literal", "residual", "visual_query"]


def make_arguments(**changes: Any) -> dict[str, Any]:
    arguments = {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 3,
        "features": FEATURES,
        "fusion": "visual_query",
        "text_shape": [2, 6],
        "text_learned": False,
        "num_heads": 2,
        "dropout": 0.0,
    }
    return arguments | changes


def make_network(**changes: Any) -> TextGuidedUNet:
    torch.manual_seed(0)
    network = build_network(make_arguments(**changes))
    if changes.get("fusion") != "none":
        network.set_text(torch.randn(*network.fusion.text.shape))
    return network


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(16, 16), (1, 1), (1, 37), (13, 5), (8, 1), (3, 21, 5), (1, 16, 16), (1, 1, 1)])
def test_any_size_comes_back_as_it_went_in(mode: str, size: tuple[int, ...]) -> None:
    network = make_network(fusion=mode, spatial_dims=len(size), in_channels=2)
    image = torch.randn(1, 2, *size)
    logits, features = network.forward_with_features(image)  # in training mode, where an instance norm is strict
    assert logits.shape == (1, 3, *size)
    assert features.shape == (1, network.feature_size, *size)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(network.output(features), logits)
    torch.testing.assert_close(network(image), logits)


def test_size_that_divides_is_not_padded() -> None:
    network = make_network()
    maps = network.encode(torch.randn(1, 1, 24, 16))
    assert [tuple(m.shape[1:]) for m in maps] == [(4, 24, 16), (8, 12, 8), (16, 6, 4)]


@pytest.mark.parametrize("features", [(4, 4), (4, 8), (8, 4, 8, 8), (3, 5, 7, 9, 12, 12)])
def test_any_depth_and_width(features: tuple[int, ...]) -> None:
    network = make_network(features=features, num_heads=1)
    assert network(torch.randn(1, 1, 20, 9)).shape == (1, 3, 20, 9)
    assert network.size_divisor == 2 ** (len(features) - 1)


@pytest.mark.parametrize("mode", ["residual", "visual_query"])
@pytest.mark.parametrize("size", [(32, 24), (5, 16, 12)])
def test_new_network_is_the_plain_unet_bit_for_bit(mode: str, size: tuple[int, ...]) -> None:
    plain = make_network(fusion="none", spatial_dims=len(size))
    guided = make_network(fusion=mode, spatial_dims=len(size))
    image = torch.randn(2, 1, *size)
    assert torch.equal(plain(image), guided(image))


def test_text_reaches_the_logits_once_training_has_begun() -> None:
    network = make_network()
    image = torch.randn(2, 1, 16, 16)
    before = network(image).detach()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(image), torch.ones(2, 16, 16, dtype=torch.long)).backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.fusion.text_projection.parameters())
    trained = network(image).detach()
    assert not torch.equal(trained, before)
    network.set_text(torch.randn(2, 6) * 3)
    assert not torch.allclose(network(image), trained)


def test_a_batch_is_treated_one_by_one() -> None:
    network = make_network()
    torch.nn.init.normal_(network.fusion.attention.out_proj.weight)
    images = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-4, atol=1e-4)


def test_arguments_survive_json_and_rebuild_the_same_network() -> None:
    arguments = NetworkArguments.from_dict(make_arguments())
    again = NetworkArguments.from_dict(json.loads(json.dumps(arguments.to_dict())))
    assert again == arguments
    network, rebuilt = make_network(), build_network(again.to_dict())
    rebuilt.load_state_dict(network.state_dict())
    image = torch.randn(1, 1, 16, 16)
    assert torch.equal(network(image), rebuilt(image))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"depth": 4}, "depth"),
        ({"spatial_dims": 1}, "spatial_dims"),
        ({"spatial_dims": "2"}, "spatial_dims"),
        ({"in_channels": 0}, "in_channels"),
        ({"in_channels": True}, "in_channels"),
        ({"out_channels": 1}, "out_channels"),
        ({"features": [8]}, "features"),
        ({"features": "abc"}, "features"),
        ({"features": [8, 10**9]}, "features"),
        ({"features": [8, 2.5]}, "features"),
        ({"text_shape": [3, 6]}, "text_shape"),
        ({"text_shape": 7}, "text_shape"),
        ({"text_shape": None}, "text_shape"),
        ({"text_learned": 1}, "text_learned"),
        ({"num_heads": 3}, "num_heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"fusion": "magic"}, "fusion"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], names: str) -> None:
    with pytest.raises(ForgettableSegError, match=names) as caught:
        build_network(make_arguments(**change))
    assert caught.value.code == ErrorCode.SETTING_INVALID


def test_missing_argument_is_named() -> None:
    arguments = make_arguments()
    del arguments["features"]
    with pytest.raises(ForgettableSegError, match="features"):
        build_network(arguments)


def test_same_classes_take_over_everything() -> None:
    source, target = make_network(), build_network(make_arguments())
    assert transfer_weights(source, target, same_classes=True) == []
    image = torch.randn(1, 1, 16, 16)
    assert torch.equal(source(image), target(image))


@pytest.mark.parametrize("classes", [2, 4])
def test_other_classes_renew_text_and_output_only(classes: int) -> None:
    source = make_network()
    target = make_network(out_channels=classes + 1, text_shape=[classes, 9])
    own_text, own_output = target.fusion.text.clone(), target.output.weight.clone()
    renewed = transfer_weights(source.state_dict(), target, same_classes=False)
    assert sorted(renewed) == ["fusion.text", "fusion.text_norm", "fusion.text_projection", "output"]
    assert torch.equal(target.fusion.text, own_text)
    assert torch.equal(target.output.weight, own_output)
    assert torch.equal(target.fusion.attention.in_proj_weight, source.fusion.attention.in_proj_weight)
    assert all(torch.equal(a, b) for a, b in zip(source.up.parameters(), target.up.parameters(), strict=True))


def test_more_channels_renew_the_first_convolution_and_say_so() -> None:
    source, target = make_network(), make_network(in_channels=2)
    renewed = transfer_weights(source, target, same_classes=True)
    assert len(renewed) == 1
    assert renewed[0].startswith("stem.conv_0")


def test_plain_network_can_be_given_a_fusion() -> None:
    source, target = make_network(fusion="none"), make_network()
    renewed = transfer_weights(source, target, same_classes=True)
    assert renewed
    assert all(name.startswith("fusion.") for name in renewed)
    image = torch.randn(1, 1, 16, 16)
    assert torch.equal(source(image), target(image))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_blocks_are_those_of_monai(spatial_dims: int, dropout: float) -> None:
    """The same parameters under the same names, the same result, and the same gradients."""
    from monai.networks.nets import basic_unet

    norm, activation = ("instance", {"affine": True}), ("LeakyReLU", {"negative_slope": SLOPE, "inplace": True})
    common = {"act": activation, "norm": norm, "bias": False, "dropout": dropout}
    image, deep = torch.rand(2, 3, *[8] * spatial_dims), torch.rand(2, 12, *[4] * spatial_dims)
    pairs = [
        (lambda: Convolutions(spatial_dims, 3, 6, dropout), basic_unet.TwoConv(spatial_dims, 3, 6, **common), [image]),
        (lambda: Down(spatial_dims, 3, 6, dropout), basic_unet.Down(spatial_dims, 3, 6, **common), [image]),
    ]
    for halves, skip in ((True, 3), (False, 8)):
        theirs = basic_unet.UpCat(spatial_dims, 12, skip, skip, **common, halves=halves, is_pad=False)
        maps = [deep, torch.rand(2, skip, *[8] * spatial_dims)]
        pairs.append((lambda skip=skip: Up(spatial_dims, 12, skip, dropout), theirs, maps))
    for build, theirs, maps in pairs:
        ours = build()
        assert {name: value.shape for name, value in ours.state_dict().items()} == {
            name: value.shape for name, value in theirs.state_dict().items()
        }
        ours.load_state_dict(theirs.state_dict())
        outputs = []
        for block in (ours, theirs):
            torch.manual_seed(1)
            output = block(*maps)
            output.square().sum().backward()
            outputs.append(output)
        torch.testing.assert_close(*outputs)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
