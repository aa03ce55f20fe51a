"""Stores of embeddings come back as written, and damaged or dangerous ones are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.text.store import SUFFIXES, EmbeddingCache, EmbeddingStore


def make_store() -> EmbeddingStore:
    vectors = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float16)
    return EmbeddingStore(("A liver", "A left kidney", "Ein Nierenstück"), vectors, "toy encoder", "CC0-1.0")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    store, path = make_store(), tmp_path / "new" / f"store{suffix}"
    store.write(path)
    again = EmbeddingStore.read(path)
    assert (again.prompts, again.encoder, again.licence) == (store.prompts, store.encoder, store.licence)
    assert again.embeddings.dtype == np.float16
    assert np.array_equal(again.embeddings, store.embeddings)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no draft stays behind


def test_lookup_keeps_the_order_asked_for_and_ignores_case_and_white_space() -> None:
    store = make_store()
    found = store.lookup(["a  LEFT kidney ", "A liver"])
    assert found.dtype == np.float32
    assert np.array_equal(found, store.embeddings[[1, 0]].astype(np.float32))
    assert store.missing(["a liver", "A spleen"]) == ["A spleen"]


def test_of_two_equal_prompts_the_first_counts() -> None:
    store = EmbeddingStore(("a", "A"), np.array([[1.0], [2.0]]))
    assert store.lookup(["a"]).item() == 1.0


class Trap:
    """An object whose unpickling would be noticed."""

    def __reduce__(self) -> tuple:
        return (Path("unpickled").touch, ())


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Trap()))


def write_object_array(path: Path) -> None:
    np.savez(path, prompts=np.array([Trap()], dtype=object), embeddings=np.ones((1, 2)))


def write_cut_off(path: Path) -> None:
    make_store().write(path)
    path.write_bytes(path.read_bytes()[:-200])


def write_without_embeddings(path: Path) -> None:
    np.savez(path, prompts=np.array(["a"]))


def write_too_few(path: Path) -> None:
    np.savez(path, prompts=np.array(["a", "b"]), embeddings=np.ones((1, 2)))


def write_not_finite(path: Path) -> None:
    np.savez(path, prompts=np.array(["a"]), embeddings=np.array([[np.nan, 1]]))


def write_zero(path: Path) -> None:
    np.savez(path, prompts=np.array(["a"]), embeddings=np.zeros((1, 2)))


def write_integers(path: Path) -> None:
    np.savez(path, prompts=np.array(["a"]), embeddings=np.ones((1, 2), dtype=int))


@pytest.mark.parametrize(
    "write",
    [
        write_pickle,
        write_object_array,
        write_cut_off,
        write_without_embeddings,
        write_too_few,
        write_not_finite,
        write_zero,
        write_integers,
    ],
)
def test_bad_npz_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.npz"
    write(path)
    with pytest.raises(ForgettableSegError, match=r"bad\.npz cannot be read") as caught:
        EmbeddingStore.read(path)
    assert caught.value.code == ErrorCode.FILE_UNREADABLE
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, (10**12).to_bytes(8, "little") + b"{}"])
def test_bad_safetensors_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ForgettableSegError, match=r"bad\.safetensors cannot be read") as caught:
        EmbeddingStore.read(path)
    assert caught.value.code == ErrorCode.FILE_UNREADABLE


def test_other_formats_and_missing_files(tmp_path: Path) -> None:
    torch_file = tmp_path / "text.pt"
    write_pickle(torch_file)
    with pytest.raises(ForgettableSegError, match=r"only \.npz and \.safetensors") as caught:
        EmbeddingStore.read(torch_file)
    assert caught.value.code == ErrorCode.FILE_UNREADABLE
    with pytest.raises(ForgettableSegError, match=r"gone\.npz do not exist") as caught:
        EmbeddingStore.read(tmp_path / "gone.npz")
    assert caught.value.code == ErrorCode.FILE_MISSING


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ForgettableSegError, match="cannot be written") as caught:
        make_store().write(tmp_path / "file" / "store.npz")
    assert caught.value.code == ErrorCode.OUTPUT_UNWRITABLE


def test_cache_tells_encoder_weights_and_prompt_apart(tmp_path: Path) -> None:
    vector = np.arange(1.0, 4.0, dtype=np.float32)
    cache = EmbeddingCache(tmp_path, encoder="e", weights="w")
    assert cache.get("a") is None
    cache.put("a", vector)
    assert np.array_equal(cache.get("a"), vector)
    assert cache.get("A") is None
    assert EmbeddingCache(tmp_path, encoder="e", weights="v").get("a") is None
    assert EmbeddingCache(tmp_path, encoder="f", weights="w").get("a") is None


def test_damaged_cache_file_is_as_if_absent(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, encoder="e", weights="w")
    cache.put("a", np.ones(2))
    next(tmp_path.iterdir()).write_bytes(b"PK")
    assert cache.get("a") is None


@pytest.mark.parametrize(("name", "length"), [("clip_vit_b32_ct", 512), ("clip_vit_l14_ct_mr", 768)])
def test_real_clip_embeddings_are_read(shared_data: Path, name: str, length: int) -> None:
    store = EmbeddingStore.read(shared_data / "TextEmbeddings" / f"{name}.npz")
    assert store.embeddings.shape == (32, length)
    assert not store.missing(["A computerized tomography of a SPLEEN"])
