"""Files that could run code, reach outside, fill a disk or are damaged are refused, each with a sentence of its own."""

from __future__ import annotations

import pickle
import shutil
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from small_models import edit_card, make_card, make_package, put_weights, refuse, zip_of

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.models.package import ModelPackage


class Trap:
    """An object whose unpickling would be noticed."""

    def __reduce__(self) -> tuple:
        return (Path("unpickled").touch, ())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good package, in a working directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    return make_package().write(tmp_path / "abdomen")


# --- code that would run ---


@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".pth", ".bin", ".ckpt", ".PT"])
def test_pickled_file_given_as_a_model(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Trap()))
    refuse(path, "can run code when it is loaded")


@pytest.mark.parametrize("name", ["weights.pt", "bank.pkl", "pytorch_model.bin"])
def test_pickled_file_inside(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(Trap()))
    refuse(folder, f"'{name}' is a kind of file that can run code")
    refuse(zip_of(folder), f"'{name}' is a kind of file that can run code")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_called_safetensors(folder: Path, protocol: int) -> None:
    put_weights(folder, pickle.dumps([Trap(), "x" * 50], protocol=protocol))
    refuse(folder, "is a pickle")
    assert not Path("unpickled").exists()


def test_torch_file_called_safetensors(folder: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "x")
    put_weights(folder, (tmp_path / "x").read_bytes())
    refuse(folder, "is a pickle")


def test_safetensors_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """The header's length comes first; 640 is written 80 02, which is how a pickle starts."""
    package = make_package()
    for padding in range(8000):
        tensors = dict(package.tensors) | {f"calibration.{'x' * padding}": torch.ones(1)}
        content = save(tensors)
        if content[:1] == b"\x80":
            break
    assert content[:1] == b"\x80"
    path = ModelPackage(package.card, tensors).write(tmp_path / "model")
    assert set(ModelPackage.read(path).tensors) == set(tensors)


# --- archives that reach outside ---


@pytest.mark.parametrize(
    "name", ["../model.json", "a/../../x", "/etc/passwd", "C:/x", "C:x", "..\\x", "\\\\server\\x", "a\\..\\x", ".."]
)
def test_zip_entry_that_leaves_the_folder(folder: Path, name: str) -> None:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # the constructor would make it harmless
    refuse(zip_of(folder, {info: b"x"}), "would leave the model's folder")


def test_zip_entry_that_is_a_link(folder: Path) -> None:
    link = zipfile.ZipInfo("README.md")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    (folder / "README.md").unlink()
    refuse(zip_of(folder, {link: b"/etc/passwd"}), "'README.md' is a link to another place")


def test_folder_entry_that_is_a_link(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "README.md", tmp_path / "elsewhere.md")
    try:
        (folder / "README.md").symlink_to(tmp_path / "elsewhere.md")
    except OSError:
        pytest.skip("this system does not let tests make links")
    refuse(folder, "'README.md' is a link to another place")


# --- sizes ---


def test_zip_bomb_is_refused_before_it_is_opened(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(bytes(50_000_000))
    path = zip_of(folder)
    assert path.stat().st_size < 200_000
    refuse(path, r"'weights\.safetensors' would grow \d+-fold")


@pytest.mark.parametrize(("name", "size"), [("model.json", 2**20 + 1), ("README.md", 2**20 + 1)])
def test_oversized_file(folder: Path, name: str, size: int) -> None:
    (folder / name).write_bytes(b"{" + b" " * (size - 1))
    refuse(folder, rf"its {name} states 1,048,577 bytes, and at most 1,048,576")
    refuse(zip_of(folder), rf"its {name} states 1,048,577 bytes, and at most 1,048,576")


def test_oversized_weights_are_refused_without_being_read(folder: Path) -> None:
    with (folder / "weights.safetensors").open("r+b") as file:
        file.truncate(2**31 + 1)  # sparse: takes no space
    refuse(folder, r"weights\.safetensors states 2,147,483,649 bytes, and at most 2,147,483,648")


def rewrite_stated_size(path: Path, name: str, size: int) -> None:
    """Make the archive's directory and the entry's own header state another decompressed size."""
    content = bytearray(path.read_bytes())
    for signature, size_at, name_at in ((b"PK\x01\x02", 24, 46), (b"PK\x03\x04", 22, 30)):
        at = content.find(signature)
        while content[at + name_at : at + name_at + len(name)] != name.encode():
            at = content.find(signature, at + 1)
        content[at + size_at : at + size_at + 4] = struct.pack("<I", size)
    path.write_bytes(content)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_zip_that_lies_about_a_size(folder: Path, factor: float) -> None:
    path = zip_of(folder)
    rewrite_stated_size(path, "weights.safetensors", int((folder / "weights.safetensors").stat().st_size * factor))
    refuse(path, r"archive is damaged|has another size than it states")


# --- damaged, incomplete or foreign packages ---


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refuse(folder, f"it holds no {name}")
    refuse(zip_of(folder), f"it holds no {name}")


@pytest.mark.parametrize("name", ["notes.txt", "patch.npz", "image.nii.gz", "run.py"])
def test_unknown_file(folder: Path, name: str) -> None:
    (folder / name).write_text("x")
    refuse(folder, f"a file that does not belong to a model, '{name}'")
    refuse(zip_of(folder), f"a file that does not belong to a model, '{name}'")


def test_file_twice_in_a_zip(folder: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zip_of(folder, {"model.json": b"{}"})
    refuse(path, r"holds 'model\.json' twice")


def test_document_that_the_card_does_not_name(folder: Path) -> None:
    (folder / "LICENSE.txt").write_text("mine")
    refuse(folder, "does not name the files beside it")


def test_weights_that_are_cut_off(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refuse(folder, r"weights\.safetensors is cut off \(\d+ of \d+ bytes\)")


def test_weights_with_something_behind_them(folder: Path) -> None:
    with (folder / "weights.safetensors").open("ab") as file:
        file.write(b"a patch")
    refuse(folder, "more than the")


def test_one_changed_bit(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refuse(folder, "its hash differs")


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 64, (10**12).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"{}x"]
)
def test_weights_that_are_no_safetensors(folder: Path, content: bytes) -> None:
    put_weights(folder, content)
    refuse(folder, "not a whole safetensors file")


def test_safetensors_cut_off_by_their_author(folder: Path) -> None:
    put_weights(folder, (folder / "weights.safetensors").read_bytes()[:-100])
    refuse(folder, "not a whole safetensors file")


@pytest.mark.parametrize("size", [0, 30, 0.5, 0.999])
def test_zip_that_is_cut_off(folder: Path, size: float) -> None:
    path = zip_of(folder)
    content = path.read_bytes()
    path.write_bytes(content[: size if isinstance(size, int) else int(len(content) * size)])
    refuse(path, "neither a folder nor a zip archive|archive is damaged")


def test_zip_with_a_damaged_entry(folder: Path) -> None:
    path = zip_of(folder)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("weights.safetensors").header_offset + 200
    content[at : at + 50] = bytes(50)
    path.write_bytes(content)
    refuse(path, "archive is damaged")


# --- and what only looks odd is read ---


def test_zip_of_the_folder_itself_is_read(folder: Path) -> None:
    assert ModelPackage.read(zip_of(folder, prefix="abdomen/")).name == "abdomen"


def test_what_systems_leave_in_folders_does_not_matter(folder: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"x")
    assert ModelPackage.read(folder).name == "abdomen"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ForgettableSegError, match="no model at") as caught:
        ModelPackage.read(tmp_path / "gone.zip")
    assert caught.value.code == ErrorCode.MODEL_MISSING


@pytest.mark.parametrize("content", [b"", b"text", np.zeros(3).tobytes()])
def test_a_file_that_is_no_package(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(content)
    refuse(path, "neither a folder nor a zip archive")


def test_every_sentence_here_speaks_of_a_package_that_was_good(folder: Path) -> None:
    """The damage of each test is what is refused: undamaged, folder and archive are read."""
    assert ModelPackage.read(folder).card == {**make_card()}
    assert ModelPackage.read(zip_of(folder)).card == ModelPackage.read(folder).card
    put_weights(folder, (folder / "weights.safetensors").read_bytes())
    edit_card(folder, lambda card: None)
    assert ModelPackage.read(folder).name == "abdomen"
