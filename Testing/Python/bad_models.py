"""Rows of bad input: model packages, as somebody installs them or segments with them."""

from __future__ import annotations

import json
import pickle
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bad_inputs import Good, Row
from safetensors.torch import load_file, save
from small_models import edit_card, put_weights, zip_of


def _install(name: str, names: str, spoil: Callable[[Path], Path | None], like: str = "") -> Row:
    """A row that installs a copy of a good package which `spoil` has changed; it may return another path."""

    def command(good: Good) -> list[str]:
        folder = good.folder / "given"
        shutil.copytree(good.model, folder)
        return ["models", "install", str(spoil(folder) or folder)]

    return Row(name, "MODEL_INVALID", names, command, like=like)


def _card(name: str, names: str, /, like: str = "", **changes: Any) -> Row:
    """A row whose card says something else."""
    return _install(name, names, lambda folder: edit_card(folder, lambda card: card.update(changes)), like)


def _tensors(name: str, names: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Row:
    """A row whose weights are others, with a card that agrees."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "weights.safetensors")
        change(tensors)
        put_weights(folder, save(tensors))

    return _install(name, names, spoil)


def _header(folder: Path, header: dict[str, Any], data: bytes = b"") -> None:
    """Weights whose header says whatever it likes."""
    text = json.dumps(header).encode()
    put_weights(folder, len(text).to_bytes(8, "little") + text + data)


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _zip_with(name: str, content: bytes = b"x", *, mode: int = 0) -> Callable[[Path], Path]:
    def spoil(folder: Path) -> Path:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name  # the constructor would make it harmless
        info.external_attr = mode << 16
        return zip_of(folder, {info: content})

    return spoil


def _bomb(folder: Path) -> Path:
    (folder / "weights.safetensors").write_bytes(bytes(5_000_000))
    return zip_of(folder)


def _cut_zip(folder: Path) -> Path:
    path = zip_of(folder)
    path.write_bytes(path.read_bytes()[:-400])
    return path


def _cut(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _flip(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _pickled(folder: Path) -> Path:
    path = folder.parent / "model.pth"
    path.write_bytes(pickle.dumps({"weights": 1}))
    return path


def _segment_with(good: Good, model: str) -> list[str]:
    return ["segment", str(good.image), "--model", model, "--output", str(good.out), "--device", "cpu"]


_FLOAT = {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 8]}
_ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}

MODELS = (
    Row("model is missing", "MODEL_MISSING", "'ghost'; installed are", lambda g: _segment_with(g, "ghost")),
    Row("package is missing", "MODEL_MISSING", "gone.zip", lambda g: ["models", "install", str(g.folder / "gone.zip")]),
    Row(
        "damaged model in a job",
        "MODEL_INVALID",
        "run cannot be used.*'notes.txt'",
        lambda g: _segment_with(g, str(g.folder / "run")),
    ),
    _install("pickled model", "model.pth.*run code", _pickled),
    _install(
        "pickle beside the weights", "'bank.pkl' is a kind", lambda f: (f / "bank.pkl").write_bytes(b"x") and None
    ),
    _install("pickle called safetensors", "is a pickle", lambda f: put_weights(f, pickle.dumps(["x"] * 9))),
    _install("script in a package", "'setup.py'", lambda f: (f / "setup.py").write_text("1") and None),
    _install("no card", "holds no model.json", _without("model.json")),
    _install("no weights", "holds no weights.safetensors", _without("weights.safetensors")),
    _install("card without end", "not JSON", lambda f: (f / "model.json").write_text("[" * 99_999) and None),
    _install("card with NaN", "NaN is not a number", lambda f: (f / "model.json").write_text('{"a": NaN}') and None),
    _install("card is a list", "not a JSON object", lambda f: (f / "model.json").write_text("[]") and None),
    _install("weights cut off", "is cut off", _cut),
    _install("weights changed", "its hash differs", _flip),
    _install("weights are no safetensors", "not a whole safetensors", lambda f: put_weights(f, b"\1" * 64)),
    _install(
        "shape of a billion terabytes", "safetensors.*[Oo]verflow|not a whole", lambda f: _header(f, {"a": _FLOAT})
    ),
    _install(
        "tensors that overlap", "not a whole safetensors.*", lambda f: _header(f, {"a": _ONE, "b": _ONE}, bytes(4))
    ),
    _install("zip that leaves the folder", "would leave", _zip_with("../evil")),
    _install("link in a zip", "is a link", _zip_with("README.md", b"/etc/hosts", mode=stat.S_IFLNK | 0o777), ""),
    _install("zip bomb", "would grow", _bomb),
    _install("cut-off zip", "neither a folder nor a zip", _cut_zip),
    _card("unknown schema", "schema version 9", schema=9),
    _card("card with an unknown entry", "unknown entry 'hook'", hook="x"),
    _card("name that leaves the folder", "'../../x' cannot be the name", name="../../x"),
    _card("patch of a billion voxels", "patch_size", patch_size=[10**9, 16]),
    _card("prompts that do not fit", "text prompts differ", text={"prompts": ["one"]}),
    _card("prototypes that nobody has learnt", "'scdl' are none that its network", training={"prototypes": "scdl"}),
    _card("texts embedded in an unknown way", "in a way that is not known", text={"prompts": [], "reports": ["magic"]}),
    _card("prototypes that are a list", "are none that its network has learnt", training={"prototypes": [1]}),
    _card("card whose training is text", "'training' in its model.json is not an object", training="x"),
    _install("network of a billion features", "features", lambda f: edit_card(f, _ask_for([10**9, 4]))),
    _install("network of other weights", "is missing|has shape", lambda f: edit_card(f, _ask_for([4096] * 10))),
    _tensors("tensor is missing", "'network.output.bias' is missing", lambda t: t.pop("network.output.bias")),
    _tensors("tensor too many", "'patch'", lambda t: t.update(patch=torch.zeros(4))),
    _tensors("weights with NaN", "not finite", lambda t: t["network.output.bias"].fill_(torch.nan)),
    _tensors("negative variance", "negative numbers", lambda t: t["prototypes.variance"].fill_(-1)),
    Row(
        "model to remove is missing",
        "MODEL_MISSING",
        "'ghost'",
        lambda g: ["models", "remove", "ghost"],
        like="model is missing",
    ),
    Row(
        "export over something",
        "OUTPUT_UNWRITABLE",
        "exported exists already",
        lambda g: ["models", "export", str(g.model), str(g.folder / "exported")],
    ),
)


def _ask_for(features: list[int]) -> Callable[[dict[str, Any]], None]:
    return lambda card: card["network"].update(features=features, num_heads=1)
