"""A trained model as one folder or zip archive of plain numbers and JSON, that can be checked before it is used."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ForgettableSegLib.cases.preprocessing import Preprocessing
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.models.archive import (
    CARD,
    DOCUMENTS,
    WEIGHTS,
    check_hashes,
    check_not_pickled,
    check_sizes,
    discard,
    read_files,
)
from ForgettableSegLib.models.card import SCHEMA, check_card, check_private, invalid, parse_card
from ForgettableSegLib.models.field_of_view import FieldOfView
from ForgettableSegLib.models.regions import LARGEST_TEMPLATE, TEMPLATE, LocatorCard
from ForgettableSegLib.network.build import build_network
from ForgettableSegLib.network.ensemble import Ensemble
from ForgettableSegLib.network.unet import TextGuidedUNet

if TYPE_CHECKING:
    from ForgettableSegLib.network.backbones import Backbone

_NETWORK, _PROTOTYPES, _CALIBRATION = "network.", "prototypes.", "calibration."
# Every member of an ensemble holds the same text.
_TEXT = ("network.fusion.text", "network.members.0.fusion.text")
_NOT_NEGATIVE = ("prototypes.variance", "prototypes.count", "calibration.")
_MAX_BINS = 4096
# The same content gives the same archive, whenever it is written.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class ModelPackage:
    """A model: what it segments, how cases are prepared for it, its weights, and what its difficulty maps need.

    The tensors are kept as they are stored, on the CPU: ``network.*`` in float16, ``prototypes.mean`` [C, D],
    ``prototypes.variance`` [C] and ``calibration.*`` [bins] in float32, ``prototypes.count`` [C] in int64, and, of a
    model with a locator, ``locator.template`` [z, y, x] in uint8. Nothing else can be in a package, so no image of a
    case can.

    Args:
        card: content of ``model.json`` (schema, name, title, description, licence, attribution, task, preprocessing,
            network, text, preset, patch_size, training, provenance, metrics, field_of_view, locator, keep_largest);
            ``files`` is written, not kept.
        tensors: see above; the prototypes and calibrations may be absent.
        documents: ``README.md`` and ``LICENSE.txt``, for people.
        source: how a sentence names it.

    Raises:
        ForgettableSegError: MODEL_INVALID where card and tensors are not valid or do not belong together.
    """

    card: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    documents: Mapping[str, str] = field(default_factory=dict)
    source: str = "The model"

    def __post_init__(self) -> None:
        object.__setattr__(self, "card", {"schema": SCHEMA, **self.card})
        check_card(self.card, self.source)
        _check_tensors(self.card, self.tensors, self.source)
        object.__setattr__(self, "tensors", {name: _as_stored(name, value) for name, value in self.tensors.items()})
        for name, value in self.tensors.items():
            if not torch.isfinite(value).all():
                raise invalid(self.source, f"its tensor '{name}' holds numbers that are not finite (as stored)")
            if name.startswith(_NOT_NEGATIVE) and (value < 0).any():
                raise invalid(self.source, f"its tensor '{name}' holds negative numbers")
        for name in self.documents:
            if name not in DOCUMENTS:
                raise invalid(self.source, f"'{name}' is none of the documents it may hold ({', '.join(DOCUMENTS)})")

    @classmethod
    def assemble(
        cls,
        card: Mapping[str, Any],
        network: nn.Module,
        *,
        prototypes: Mapping[str, Tensor] | None = None,
        calibration: Mapping[str, Tensor] | None = None,
        documents: Mapping[str, str] | None = None,
    ) -> ModelPackage:
        """A package from what a training run ends with.

        Args:
            card: see the class.
            network: built by ``build_network(card["network"])``, trained.
            prototypes: "mean" [C, D], "variance" [C], "count" [C].
            calibration: histograms, their names with or without the prefix ``calibration.``.
            documents: see the class.
        """
        tensors = {f"{_NETWORK}{name}": value for name, value in network.state_dict().items()}
        tensors |= {f"{_PROTOTYPES}{name}": value for name, value in (prototypes or {}).items()}
        for name, value in (calibration or {}).items():
            tensors[f"{_CALIBRATION}{name.removeprefix(_CALIBRATION)}"] = value
        return cls(card, tensors, documents or {})

    @classmethod
    def read(cls, path: str | Path) -> ModelPackage:
        """Read and check a package.

        Args:
            path: its folder or ``.zip`` file.

        Raises:
            ForgettableSegError: MODEL_MISSING where there is nothing, MODEL_INVALID with a sentence of its own for
                each thing that can be wrong. Nothing in the package is run or written anywhere.
        """
        path = Path(path)
        source = f"The model {path.name}"
        if not path.exists():
            raise ForgettableSegError(ErrorCode.MODEL_MISSING, f"There is no model at {path}.")
        files = read_files(path, source)
        card = parse_card(files[CARD], source)
        stated = card.pop("files", None)
        check_card(card, source)
        check_sizes({name: len(content) for name, content in files.items()}, stated, source)
        check_hashes(files, stated, source)
        check_not_pickled(files[WEIGHTS], source)
        try:
            tensors = load(files[WEIGHTS])
        except (SafetensorError, ValueError, KeyError) as error:
            raise invalid(source, f"its {WEIGHTS} is not a whole safetensors file ({error})") from error
        documents = {name: files[name].decode("utf-8", "replace") for name in DOCUMENTS if name in files}
        return cls(card, tensors, documents, source)

    def write(self, path: str | Path, *, replace: bool = False, private: Collection[str] = ()) -> Path:
        """Write the package; it appears whole or not at all.

        Args:
            path: a folder to be made, or a file that ends with ``.zip``.
            replace: whether what is there may be replaced.
            private: words that must not occur in it, such as the ids of the cases it was trained on.

        Returns:
            The path.

        Raises:
            ForgettableSegError: MODEL_INVALID where the card tells about the cases or the machine; DISK_FULL or
                OUTPUT_UNWRITABLE where it cannot be written.
        """
        path = Path(path)
        check_private(self.card, self.documents, private)
        if path.exists() and not replace:
            message = f"{path} exists already and is not replaced."
            raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, message, hint="Choose another name.")
        files = self._files()
        draft = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            (_write_zip if path.suffix.lower() == ".zip" else _write_folder)(draft, files)
            _move_into_place(draft, path)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            code = ErrorCode.DISK_FULL if full else ErrorCode.OUTPUT_UNWRITABLE
            message = f"The model cannot be written to {path} ({error.strerror or error})."
            raise ForgettableSegError(code, message) from error
        finally:
            discard(draft)
        return path

    def is_stored_in(self, folder: Path) -> bool:
        """Whether a folder holds this very package."""
        with contextlib.suppress(OSError):
            return all((folder / name).read_bytes() == content for name, content in self._files().items())
        return False

    def renamed(self, name: str) -> ModelPackage:
        """The same model under another name."""
        return ModelPackage({**self.card, "name": name}, self.tensors, self.documents, self.source)

    @property
    def name(self) -> str:
        """Name that the model is found by."""
        return self.card["name"]

    @cached_property
    def task(self) -> Task:
        """What it segments."""
        return Task.from_dict(self.card["task"])

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How cases are prepared for it."""
        return Preprocessing.from_dict(self.card["preprocessing"])

    @property
    def patch_size(self) -> tuple[int, ...]:
        """The training patch in voxels, one number an axis of the network."""
        return tuple(self.card["patch_size"])

    @property
    def text(self) -> Tensor | None:
        """Embeddings of the prompts, [C-1, L] float32; None where the network uses no text."""
        return next((self.tensors[name].float() for name in _TEXT if name in self.tensors), None)

    @property
    def prototypes(self) -> dict[str, Tensor] | None:
        """ "mean" [C, D], "variance" [C] and "count" [C]; None where it was trained without. D is 0 for learnt ones."""
        return self._under(_PROTOTYPES) or None

    @property
    def calibration(self) -> dict[str, Tensor]:
        """Histograms by name, without the prefix."""
        return self._under(_CALIBRATION)

    @cached_property
    def field_of_view(self) -> FieldOfView | None:
        """What its training cases looked like; None where nobody measured."""
        return FieldOfView.from_dict(self.card["field_of_view"]) if "field_of_view" in self.card else None

    @cached_property
    def locator(self) -> LocatorCard | None:
        """Where its structures lie in its template (the tensor ``locator.template``); None where it has none."""
        return LocatorCard.from_dict(self.card["locator"]) if "locator" in self.card else None

    def with_parts(self, changes: Mapping[str, Any], *, template: Tensor | None = None) -> ModelPackage:
        """The same model with other entries of its card, and perhaps another template of its locator."""
        tensors = {**self.tensors, **({} if template is None else {TEMPLATE: template})}
        return ModelPackage({**self.card, **changes}, tensors, self.documents, self.source)

    def network(self) -> TextGuidedUNet | Backbone | Ensemble:
        """A new network with the weights in float32, on the CPU, in evaluation mode."""
        with torch.device("meta"):  # shapes only: the weights are not drawn at random to be overwritten
            network = build_network(self.card["network"])
        weights = {name: value.float() for name, value in self._under(_NETWORK).items()}
        network.load_state_dict(weights, assign=True)
        return network.eval()

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}

    def _files(self) -> dict[str, bytes]:
        """Content of each file, the card last, because it states the others' hashes."""
        files = {WEIGHTS: save(dict(self.tensors))}
        files |= {name: text.encode() for name, text in self.documents.items()}
        stated = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
        }
        card = json.dumps({**self.card, "files": stated}, indent=1, ensure_ascii=False, allow_nan=False)
        return {**files, CARD: card.encode()}


def _check_tensors(card: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> None:
    """The tensors are those that the card's network and classes ask for, in their shapes, and no others."""
    with torch.device("meta"):
        network = build_network(card["network"])
    classes = card["network"]["out_channels"]
    expected = {f"{_NETWORK}{name}": tuple(value.shape) for name, value in network.state_dict().items()}
    if any(name.startswith(_PROTOTYPES) for name in tensors):
        # The prototypes are means of logits or of penultimate features, or the network has learnt them itself.
        given = tuple(tensors[f"{_PROTOTYPES}mean"].shape) if f"{_PROTOTYPES}mean" in tensors else ()
        length = classes if given == (classes, classes) else network.feature_size
        if card.get("training", {}).get("prototypes", "ema") != "ema":
            length = 0
        expected[f"{_PROTOTYPES}mean"] = (classes, length)
        expected[f"{_PROTOTYPES}variance"] = expected[f"{_PROTOTYPES}count"] = (classes,)
    for name, shape in expected.items():
        if name not in tensors:
            raise invalid(source, f"its tensor '{name}' is missing")
        if tuple(tensors[name].shape) != shape:
            reason = f"its tensor '{name}' has shape {tuple(tensors[name].shape)}, but its arguments ask for {shape}"
            raise invalid(source, reason)
    if (TEMPLATE in tensors) != ("locator" in card):
        raise invalid(source, "it holds only one half of a locator, whose card and template belong together")
    for name, value in tensors.items():
        if name == TEMPLATE:
            _check_template(value, source)
        if name in expected or name == TEMPLATE:
            continue
        if not name.startswith(_CALIBRATION) or value.ndim != 1 or value.numel() > _MAX_BINS:
            raise invalid(source, f"it holds a tensor that does not belong to a model, '{name}'")


def _check_template(value: Tensor, source: str) -> None:
    if value.dtype != torch.uint8 or value.ndim != 3 or value.numel() > LARGEST_TEMPLATE or min(value.shape) < 8:
        reason = f"the template of its locator is not a volume of at most {LARGEST_TEMPLATE:,} voxels of 8 bits"
        raise invalid(source, reason)
    if not (value > 0).any() or value.max() == value[value > 0].min():
        raise invalid(source, "the template of its locator shows nothing")


def _as_stored(name: str, value: Tensor) -> Tensor:
    if name == TEMPLATE:
        kind = torch.uint8
    elif name == f"{_PROTOTYPES}count":
        kind = torch.int64
    else:
        kind = torch.float16 if name.startswith(_NETWORK) else torch.float32
    return value.detach().to("cpu", kind, copy=True).contiguous()


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), content, zipfile.ZIP_DEFLATED)


def _move_into_place(draft: Path, path: Path) -> None:
    """Rename; what is in the way is first moved aside, and comes back if the rename fails."""
    aside = draft.with_name(f"{draft.name}-old")
    in_the_way = path.exists()
    if in_the_way:
        os.replace(path, aside)
    try:
        os.replace(draft, path)
    except OSError:
        if in_the_way:
            os.replace(aside, path)
        raise
    discard(aside)
