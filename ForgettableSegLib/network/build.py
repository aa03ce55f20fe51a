"""A network from plain arguments, so that a file needs to hold numbers only and never code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ForgettableSegLib.network.arguments import NetworkArguments
from ForgettableSegLib.network.ensemble import Ensemble
from ForgettableSegLib.network.unet import TextGuidedUNet

if TYPE_CHECKING:
    from ForgettableSegLib.network.backbones import Backbone

# What belongs to the classes and their texts; the rest of a network serves any classes.
_OF_UNET = (
    "fusion",
    "text_shape",
    "text_learned",
    "context_slices",
    "deep_supervision",
    "distributions",
    "memory",
    "prototypes",
)
_OUTPUTS = ("output", "lower_outputs", "body.model.2", "body.output_block", "body.out")  # of each architecture
_LEARNT_OF_CLASSES = ("distributions.mean", "distributions.spread", "memory.items", "memory.filled")
_CLASS_MODULES = ("fusion.text", "fusion.text_projection", "fusion.text_norm", *_LEARNT_OF_CLASSES, *_OUTPUTS)


def build_network(arguments: Mapping[str, Any] | NetworkArguments) -> TextGuidedUNet | Backbone | Ensemble:
    """A network with new weights from its arguments.

    Raises:
        ForgettableSegError: SETTING_INVALID, naming the argument that is unknown, missing or out of range.
    """
    if not isinstance(arguments, NetworkArguments):
        arguments = NetworkArguments.from_dict(arguments)
    if arguments.members:
        return Ensemble([build_network(replace(arguments, members=(), mirror_axes=axes)) for axes in arguments.members])
    values = {field.name: getattr(arguments, field.name) for field in fields(arguments) if field.name != "members"}
    if arguments.architecture != "unet":
        from ForgettableSegLib.network.backbones import Backbone  # here, for it takes all of MONAI

        return Backbone(**{name: value for name, value in values.items() if name not in _OF_UNET})
    return TextGuidedUNet(**{name: value for name, value in values.items() if name not in ("architecture", "window")})


def transfer_weights(source: nn.Module | Mapping[str, Tensor], target: nn.Module, *, same_classes: bool) -> list[str]:
    """Start ``target`` from what ``source`` has learnt, as far as it fits.

    Args:
        source: a trained network or its state.
        target: a new network; changed in place. Where the classes differ it keeps its own text embeddings, text
            projection and output layer, and so does whatever has another shape.
        same_classes: source and target segment the same classes, in the same order, with the same texts.

    Returns:
        Names of the modules (``output``, ``fusion.text_projection``, ...) that were not taken over.
    """
    weights = source.state_dict() if isinstance(source, nn.Module) else source
    kept: dict[str, Tensor] = {}
    new: list[str] = []
    for name, value in target.state_dict().items():
        of_classes = name.startswith(tuple(f"{module}." for module in _CLASS_MODULES)) or name in _CLASS_MODULES
        found = weights.get(name)
        if found is None or found.shape != value.shape or (of_classes and not same_classes):
            new.append(name if name in _CLASS_MODULES else name.rpartition(".")[0])
        else:
            kept[name] = found
    target.load_state_dict(kept, strict=False)
    return list(dict.fromkeys(new))
