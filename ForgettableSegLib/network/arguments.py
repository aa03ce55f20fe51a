"""What a network is built from: plain numbers and words, checked without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

ARCHITECTURES = ("unet", "attention_unet", "unetr", "nnunet")
_MAX_LEVELS = 10
_MAX_FEATURES = 4096
_MAX_CHANNELS = 1024
_MAX_CONTEXT = 5
_MAX_MEMBERS = 8
_MAX_PROTOTYPES = 4096
UNETR_PATCH = 16


@dataclass(frozen=True, kw_only=True)
class NetworkArguments:
    """Everything needed to build a network again, as plain JSON values.

    See :class:`~ForgettableSegLib.network.unet.TextGuidedUNet`, which the architecture "unet" is, and
    :class:`~ForgettableSegLib.network.backbones.Backbone`, which the others are. With
    ``members``, which are the ``mirror_axes`` of each, it is an :class:`Ensemble` of so many of them.
    """

    spatial_dims: int
    in_channels: int
    out_channels: int
    features: tuple[int, ...]
    fusion: str = "none"
    text_shape: tuple[int, int] | None = None
    text_learned: bool = False
    num_heads: int = 4
    dropout: float = 0.0
    architecture: str = "unet"
    window: tuple[int, ...] | None = None
    context_slices: int = 0
    mirror_axes: tuple[int, ...] = ()
    members: tuple[tuple[int, ...], ...] = ()
    deep_supervision: bool = False
    distributions: bool = False
    memory: bool = False
    prototypes: int = 0

    def __post_init__(self) -> None:
        _check_number("spatial_dims", self.spatial_dims, 2, 3)
        _check_number("in_channels", self.in_channels, 1, _MAX_CHANNELS)
        _check_number("out_channels", self.out_channels, 2, _MAX_CHANNELS)
        object.__setattr__(self, "features", _sequence("features", self.features))
        if not 2 <= len(self.features) <= _MAX_LEVELS:
            _reject("features", f"{len(self.features)} levels", f"2 to {_MAX_LEVELS} levels")
        for value in self.features:
            _check_number("features", value, 1, _MAX_FEATURES)
        if self.text_shape is not None:
            object.__setattr__(self, "text_shape", _sequence("text_shape", self.text_shape))
            for value in self.text_shape:
                _check_number("text_shape", value, 1, 65536)
            if len(self.text_shape) != 2 or self.text_shape[0] != self.out_channels - 1:
                _reject("text_shape", self.text_shape, f"({self.out_channels - 1} foreground classes, length)")
        for name in ("text_learned", "deep_supervision", "distributions", "memory"):
            if not isinstance(getattr(self, name), bool):
                _reject(name, getattr(self, name), "true or false")
        _check_number("num_heads", self.num_heads, 1, _MAX_FEATURES)
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            _reject("dropout", self.dropout, "at least 0 and below 1")
        _check_number("context_slices", self.context_slices, 0, _MAX_CONTEXT)
        if self.context_slices and (self.spatial_dims != 2 or self.architecture != "unet"):
            _reject("context_slices", self.context_slices, "0 except in 2D with the architecture unet")
        _check_number("prototypes", self.prototypes, 0, _MAX_PROTOTYPES)
        if self.prototypes and (self.fusion != "visual_query" or self.text_shape is None or self.text_learned):
            _reject("prototypes", self.prototypes, "0 except with the fusion visual_query and a text_shape")
        object.__setattr__(self, "mirror_axes", _axes("mirror_axes", self.mirror_axes))
        members = tuple(_axes("members", axes) for axes in _sequence("members", self.members))
        object.__setattr__(self, "members", members)
        if len(members) == 1 or len(members) > _MAX_MEMBERS or (members and self.mirror_axes):
            _reject("members", members, f"2 to {_MAX_MEMBERS} lists of axes, and mirror_axes empty")
        self._check_architecture()

    def _check_architecture(self) -> None:
        if self.architecture not in ARCHITECTURES:
            _reject("architecture", self.architecture, f"one of {', '.join(ARCHITECTURES)}")
        if self.architecture != "unet" and self.fusion != "none":
            _reject("fusion", self.fusion, f"none with the architecture {self.architecture}")
        for name in ("deep_supervision", "distributions", "memory"):
            if self.architecture != "unet" and getattr(self, name):
                _reject(name, getattr(self, name), f"false with the architecture {self.architecture}")
        if self.architecture == "nnunet" and len(self.features) < 3:
            _reject("features", f"{len(self.features)} levels", "3 levels or more with the architecture nnunet")
        if self.architecture != "unetr":
            if self.window is not None:
                _reject("window", self.window, f"left out with the architecture {self.architecture}")
            return
        object.__setattr__(self, "window", _sequence("window", self.window))
        for value in self.window:
            _check_number("window", value, UNETR_PATCH, _MAX_FEATURES)
        if len(self.window) != self.spatial_dims or any(n % UNETR_PATCH for n in self.window):
            _reject("window", self.window, f"{self.spatial_dims} multiples of {UNETR_PATCH}")
        if self.features[-1] % self.num_heads:
            _reject("num_heads", self.num_heads, f"a divisor of the last of features, {self.features[-1]}")

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> NetworkArguments:
        """Arguments as they stand in a settings file or a model package.

        Raises:
            ForgettableSegError: SETTING_INVALID, naming the argument that is unknown, missing or out of range.
        """
        known = {field.name for field in fields(cls)}
        for name in arguments:
            if name not in known:
                _reject("network arguments", f"'{name}'", f"among {', '.join(sorted(known))}")
        try:
            return cls(**arguments)
        except TypeError as error:
            raise ForgettableSegError(ErrorCode.SETTING_INVALID, f"The network's arguments: {error}.") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values that :meth:`from_dict` takes back."""
        plain = asdict(self)
        plain["members"] = [list(axes) for axes in self.members]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _sequence(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        _reject(name, value, "a list of numbers")
    return tuple(value)


def _axes(name: str, value: Any) -> tuple[int, ...]:
    axes = _sequence(name, value)
    for axis in axes:
        _check_number(name, axis, 0, 2)
    if len(set(axes)) < len(axes):
        _reject(name, value, "made of different axes")
    return axes


def _check_number(name: str, value: Any, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        _reject(name, value, f"a whole number from {lowest} to {highest}")


def _reject(name: str, value: Any, wanted: str) -> NoReturn:
    raise ForgettableSegError(ErrorCode.SETTING_INVALID, f"{name} is {value}, but it must be {wanted}.")
