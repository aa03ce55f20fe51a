"""The fusion does what Eq. 1-4 say, and each mode keeps its promise."""

from __future__ import annotations

import pytest
import torch

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.network.fusion import TextGuidedFusion, sin_cos_position

CHANNELS, CLASSES, LENGTH = 16, 3, 12


def make_fusion(mode: str, *, spatial_dims: int = 2, trained: bool = True, classes: int = CLASSES) -> TextGuidedFusion:
    torch.manual_seed(1)
    fusion = TextGuidedFusion(
        mode=mode, spatial_dims=spatial_dims, channels=CHANNELS, text_shape=(classes, LENGTH), num_heads=4
    )
    fusion.set_text(torch.nn.functional.normalize(torch.randn(classes, LENGTH), dim=1))
    if trained:  # as after some steps: nothing is zero any more
        torch.nn.init.normal_(fusion.attention.out_proj.weight, std=0.5)
        torch.nn.init.normal_(fusion.attention.out_proj.bias, std=0.5)
    return fusion


def visual(spatial_dims: int) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(2, CHANNELS, *(5, 4, 3)[:spatial_dims])


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_literal_fusion_is_the_same_at_every_position(spatial_dims: int) -> None:
    fused = make_fusion("literal", spatial_dims=spatial_dims)(visual(spatial_dims))
    assert fused.shape == visual(spatial_dims).shape
    assert fused.flatten(2).std(dim=2).max() == 0.0
    assert fused[:, :, 0, 0].flatten(1).std() > 0.1  # but it does differ between channels


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_literal_fusion_equals_the_printed_equations_with_the_query_at_every_position(spatial_dims: int) -> None:
    """The one broadcast token gives what H'W' equal queries through softmax(Q K^T / sqrt(d_h)) V would."""
    fusion = make_fusion("literal", spatial_dims=spatial_dims)
    image = visual(spatial_dims)
    heads, width = 4, CHANNELS // 4
    f_new = fusion.text_norm(fusion.text_projection(fusion.text.flatten()))
    tokens = fusion.visual_norm(image.flatten(2).transpose(1, 2))
    positions = tokens.shape[1]
    w_q, w_k, w_v = fusion.attention.in_proj_weight.chunk(3)
    b_q, b_k, b_v = fusion.attention.in_proj_bias.chunk(3)

    def per_head(rows: torch.Tensor) -> torch.Tensor:
        return rows.reshape(2, positions, heads, width).transpose(1, 2)

    q = per_head((f_new @ w_q.T + b_q).expand(2, positions, CHANNELS))
    k, v = per_head(tokens @ w_k.T + b_k), per_head(tokens @ w_v.T + b_v)
    weights = torch.softmax(q @ k.transpose(-1, -2) / width**0.5, dim=-1)
    joined = (weights @ v).transpose(1, 2).reshape(2, positions, CHANNELS)
    expected = fusion.attention.out_proj(joined).transpose(1, 2).reshape(image.shape)
    torch.testing.assert_close(fusion(image), expected)


def test_residual_fusion_adds_the_literal_one() -> None:
    literal, residual = make_fusion("literal"), make_fusion("residual")
    residual.load_state_dict(literal.state_dict())
    torch.testing.assert_close(residual(visual(2)), visual(2) + literal(visual(2)))


@pytest.mark.parametrize("mode", ["residual", "visual_query"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_new_fusion_passes_the_features_through_bit_for_bit_and_can_learn(mode: str, spatial_dims: int) -> None:
    fusion = make_fusion(mode, spatial_dims=spatial_dims, trained=False)
    fused = fusion(visual(spatial_dims))
    assert torch.equal(fused, visual(spatial_dims))
    fused.square().sum().backward()
    assert fusion.attention.out_proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize("classes", [1, CLASSES])
def test_visual_query_brings_text_to_positions_differently(classes: int) -> None:
    fusion = make_fusion("visual_query", classes=classes)
    added = fusion(visual(2)) - visual(2)
    assert added.flatten(2).std(dim=2).min() > 1e-3
    fusion.set_text(fusion.text.flip(0) * 2 - 1)
    assert not torch.allclose(fusion(visual(2)) - visual(2), added)


def test_visual_query_knows_where_a_position_is() -> None:
    flat = torch.ones(1, CHANNELS, 4, 4)  # no image content: what differs can only be the place
    added = make_fusion("visual_query")(flat) - flat
    assert added.flatten(2).std(dim=2).max() > 1e-4


def test_no_fusion_has_no_parameters_and_changes_nothing() -> None:
    fusion = TextGuidedFusion(mode="none", spatial_dims=2, channels=CHANNELS)
    assert not fusion.state_dict()
    assert fusion(visual(2)) is not None
    assert torch.equal(fusion(visual(2)), visual(2))
    fusion.set_text(torch.zeros(1, 1))


def test_text_is_fixed_unless_it_is_learned() -> None:
    fixed = make_fusion("residual")
    learned = TextGuidedFusion(
        mode="residual", spatial_dims=2, channels=CHANNELS, text_shape=(CLASSES, LENGTH), text_learned=True
    )
    assert "text" in dict(fixed.named_buffers())
    assert "text" in dict(learned.named_parameters())
    torch.testing.assert_close(learned.text.detach().norm(dim=1), torch.ones(CLASSES))
    assert set(fixed.state_dict()) == set(learned.state_dict())
    fixed.load_state_dict(learned.state_dict())  # a trained learned text is served as a fixed one


@pytest.mark.parametrize("size", [(7,), (4, 5), (3, 4, 5)])
@pytest.mark.parametrize("channels", [1, 6, 13, 64])
def test_positions_are_told_apart(size: tuple[int, ...], channels: int) -> None:
    encoding = sin_cos_position(size, channels)
    assert encoding.shape == (torch.Size(size).numel(), channels)
    assert encoding.abs().max() <= 1
    if channels >= 2 * len(size):
        assert torch.unique(encoding, dim=0).shape[0] == encoding.shape[0]


def test_positions_have_the_closed_form() -> None:
    encoding = sin_cos_position((3, 4), 8).reshape(3, 4, 2, 2, 2)  # row, column, axis, sine or cosine, band
    row, column = torch.tensor(2.0), torch.tensor(3.0)
    torch.testing.assert_close(encoding[2, 3, 0, 0], torch.stack([row.sin(), (row / 100).sin()]))
    torch.testing.assert_close(encoding[2, 3, 1, 1], torch.stack([column.cos(), (column / 100).cos()]))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"mode": "magic"}, "fusion"),
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"text_shape": None}, "text_shape"),
        ({"text_shape": (0, 3)}, "text_shape"),
        ({"num_heads": 5}, "num_heads"),
    ],
)
def test_wrong_settings_are_named(change: dict, names: str) -> None:
    settings = {"mode": "residual", "spatial_dims": 2, "channels": 16, "text_shape": (2, 4), "num_heads": 4}
    with pytest.raises(ForgettableSegError, match=names) as caught:
        TextGuidedFusion(**settings | change)
    assert caught.value.code == ErrorCode.SETTING_INVALID


def test_text_of_another_shape_is_refused() -> None:
    with pytest.raises(ForgettableSegError, match="embeddings have shape") as caught:
        make_fusion("residual").set_text(torch.zeros(CLASSES, LENGTH + 1))
    assert caught.value.code == ErrorCode.SETTING_INVALID
