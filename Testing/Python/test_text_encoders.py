"""Every source of text gives unit vectors in class order, says what it used, and fails in plain words."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from ForgettableSegLib.cases.task import SegmentClass
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.resources import resources_dir
from ForgettableSegLib.text.encoders import encode_prompts, user_stores_dir
from ForgettableSegLib.text.prompts import prompt_for
from ForgettableSegLib.text.store import EmbeddingStore

UNHEARD = ("A photo of a zyzzyva", "A photo of a qwertz")
STARTER_PROMPTS = (
    "A magnetic resonance imaging of a anterior hippocampus",
    "A magnetic resonance imaging of a posterior hippocampus",
)


@pytest.fixture
def without_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own way to make an import fail, as where the package is not installed."""
    monkeypatch.setitem(sys.modules, "open_clip", None)


@pytest.fixture(scope="session")
def open_clip() -> Iterator[ModuleType]:
    """The real package, which many installations lack."""
    for package in ("torchvision", "open_clip"):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}, which is not installed")
    try:
        import open_clip
    except RuntimeError:
        # A torchvision that was built for another torch cannot register its own operators, and its import fails on
        # the first one that it describes. CLIP's text encoder uses none, so it is enough that the names exist.
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import open_clip

        yield open_clip  # while the library object lives, and with it the names
    else:
        yield open_clip


@pytest.fixture
def tiny_clip(open_clip: ModuleType, tmp_path: Path) -> tuple[str, Path]:
    """Name of a small open_clip architecture, and a file of random weights for it."""
    layers = {"layers": 1, "width": 16}
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "head_width": 8, **layers},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "heads": 2, **layers},
    }
    (tmp_path / "forgettableseg-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "forgettableseg-tiny.json")
    torch.manual_seed(3)
    weights = tmp_path / "tiny.pt"
    torch.save(open_clip.create_model("forgettableseg-tiny").state_dict(), weights)
    return "forgettableseg-tiny", weights


@pytest.mark.parametrize("source", ["onehot", "random", "learned"])
def test_controls_are_unit_vectors_and_the_same_again(source: str) -> None:
    text = encode_prompts(UNHEARD, source=source)
    assert text.prompts == UNHEARD
    assert text.source == source
    assert text.learned == (source == "learned")
    assert text.vectors.dtype == torch.float32
    torch.testing.assert_close(text.vectors.norm(dim=1), torch.ones(2))
    assert torch.equal(encode_prompts(UNHEARD, source=source).vectors, text.vectors)


def test_random_vectors_belong_to_the_prompt_and_point_anywhere() -> None:
    prompts = [f"prompt {i}" for i in range(50)]
    vectors = encode_prompts(prompts, source="random").vectors
    assert torch.equal(encode_prompts(prompts[::-1], source="random").vectors, vectors.flip(0))
    cosines = vectors @ vectors.T - torch.eye(50)
    assert cosines.abs().max() < 0.3  # 7 standard deviations of 1 / sqrt(512)


def test_onehot_is_the_identity() -> None:
    assert torch.equal(encode_prompts(["a", "b", "c"], source="onehot").vectors, torch.eye(3))


@pytest.mark.parametrize("template", ["A {} of a liver", "There is left kidney in this {}"])
@pytest.mark.parametrize("modality", ["magnetic resonance imaging", "computerized tomography"])
def test_auto_takes_the_shipped_store(without_open_clip: None, template: str, modality: str) -> None:
    text = encode_prompts([template.format(modality)], source="auto")
    assert (text.source, text.learned, text.warning) == ("file", False, "")
    assert text.encoder == "sentence-transformers/all-MiniLM-L6-v2"
    assert text.vectors.shape == (1, 384)


def test_shipped_store_has_the_starter_models_prompts_and_is_small() -> None:
    path = resources_dir() / "TextEmbeddings" / "minilm_l6_v2.npz"
    store = EmbeddingStore.read(path)
    assert not store.missing(STARTER_PROMPTS)
    assert store.licence == "Apache-2.0"
    assert len(set(store.prompts)) == len(store.prompts) >= 500
    assert path.stat().st_size < 1_000_000


def test_shipped_vectors_carry_meaning() -> None:
    """Words of one organ system lie nearer to each other than to those of another, as no random vectors would."""
    names = ("left kidney", "right kidney", "anterior hippocampus", "posterior hippocampus")
    vectors = encode_prompts([f"A magnetic resonance imaging of a {name}" for name in names], source="auto").vectors
    cosines = vectors @ vectors.T
    assert min(cosines[0, 1], cosines[2, 3]) > cosines[:2, 2:].max() + 0.2


def test_auto_takes_the_users_store_next(without_open_clip: None) -> None:
    EmbeddingStore(UNHEARD, np.eye(2, 5, dtype=np.float32) * 7, "my encoder").write(user_stores_dir() / "mine.npz")
    text = encode_prompts(UNHEARD, source="auto")
    assert text.encoder == "my encoder"
    assert torch.equal(text.vectors, torch.eye(2, 5))


def test_auto_learns_where_nothing_is_known_and_says_so(without_open_clip: None) -> None:
    text = encode_prompts(UNHEARD, source="auto")
    assert (text.source, text.learned) == ("learned", True)
    assert "zyzzyva" in text.warning
    assert "learns" in text.warning


def test_one_unknown_name_costs_the_others_nothing(without_open_clip: None) -> None:
    names = ("liver", "spleen", "glorpus maximus", "Pancrea")
    prompts = [prompt_for(SegmentClass(name, 1), "CT") for name in names]
    text = encode_prompts(prompts, source="auto")
    assert (text.source, text.learned) == ("file", False)
    alone = encode_prompts(prompts[:2], source="auto")
    assert torch.equal(text.vectors[:2], alone.vectors)
    torch.testing.assert_close(text.vectors.norm(dim=1), torch.ones(4))
    assert (text.vectors[2:] @ text.vectors[:2].T).abs().max() < 0.3, "a direction of its own"
    assert re.search(r"'glorpus maximus' \(the nearest known name is '[a-z ]+'\)", text.warning)
    assert "'Pancrea' (the nearest known name is 'pancreas')" in text.warning
    assert "liver" not in text.warning


def test_articles_number_and_order_find_the_stored_prompt(without_open_clip: None) -> None:
    stored = encode_prompts(["A magnetic resonance imaging of a anterior hippocampus"], source="auto")
    asked = prompt_for(SegmentClass("Hippocampus, anterior", 1), "MR")
    assert asked == "A magnetic resonance imaging of a Hippocampus, anterior"
    for prompt in (asked, "A magnetic resonance imaging of an anterior hippocampus"):
        text = encode_prompts([prompt], source="auto")
        assert text.warning == ""
        assert torch.equal(text.vectors, stored.vectors)
    two = encode_prompts(["A photo of a vertebra", "A photo of a vertebrae"], source="auto")
    assert not torch.equal(two.vectors[0], two.vectors[1]), "what is stored as it stands comes first"


def test_file_gives_real_clip_vectors_normalised_in_class_order(shared_data: Path) -> None:
    path = shared_data / "TextEmbeddings" / "clip_vit_b32_ct.npz"
    prompts = ["A computerized tomography of a Left Kidney", "A computerized tomography of a Spleen"]
    text = encode_prompts(prompts, source="file", path=path)
    raw = np.load(path)["embeddings"][[2, 0]]
    torch.testing.assert_close(text.vectors, torch.from_numpy(raw / np.linalg.norm(raw, axis=1, keepdims=True)))
    assert text.encoder == "clip_vit_b32_ct.npz"


def test_prompt_that_a_file_lacks_is_named_with_the_nearest(tmp_path: Path) -> None:
    EmbeddingStore(("A photo of a liver",), np.ones((1, 2))).write(tmp_path / "s.safetensors")
    with pytest.raises(ForgettableSegError, match=r"none for 'A photo of a livre'.*'A photo of a liver'") as caught:
        encode_prompts(["A photo of a livre"], source="file", path=tmp_path / "s.safetensors")
    assert caught.value.code == ErrorCode.TEXT_UNAVAILABLE


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"prompts": [], "source": "random"}, "prompt"),
        ({"prompts": ["a", " "], "source": "random"}, "prompt"),
        ({"prompts": ["a"], "source": "clip"}, "'clip'"),
        ({"prompts": ["a"], "source": "file"}, "path"),
    ],
)
def test_wrong_settings_are_named(arguments: dict, names: str) -> None:
    with pytest.raises(ForgettableSegError, match=names) as caught:
        encode_prompts(**arguments)
    assert caught.value.code == ErrorCode.SETTING_INVALID


def test_missing_package_gives_the_ways_out(without_open_clip: None) -> None:
    with pytest.raises(ForgettableSegError, match=r"open_clip_torch.*'file'.*'learned'") as caught:
        encode_prompts(UNHEARD, source="open_clip")
    assert caught.value.code == ErrorCode.TEXT_UNAVAILABLE


def test_open_clip_with_local_weights_is_open_clips_own_answer(
    open_clip: ModuleType, tiny_clip: tuple[str, Path]
) -> None:
    model, weights = tiny_clip
    text = encode_prompts(UNHEARD, source="open_clip", model=model, pretrained=str(weights))
    network = open_clip.create_model(model, pretrained=str(weights)).eval()
    with torch.no_grad():
        expected = network.encode_text(open_clip.get_tokenizer(model)(list(UNHEARD)), normalize=True)
    torch.testing.assert_close(text.vectors, expected)
    assert text.vectors.shape == (2, 24)
    assert (text.source, text.learned) == ("open_clip", False)
    assert model in text.encoder
    assert str(weights) not in text.encoder  # it goes into model packages, which hold no path


def test_open_clip_answers_are_kept_by_weights_content(tiny_clip: tuple[str, Path], tmp_path: Path) -> None:
    model, weights = tiny_clip
    folder = tmp_path / "cache"

    def encode(file: Path, prompts: tuple[str, ...] = UNHEARD) -> torch.Tensor:
        settings = {"model": model, "pretrained": str(file), "cache_dir": folder}
        return encode_prompts(prompts, source="open_clip", **settings).vectors

    first = encode(weights)
    stored = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(stored) == 2
    copy = shutil.copy(weights, tmp_path / "copy.pt")
    assert torch.equal(encode(Path(copy), UNHEARD[::-1]), first.flip(0))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stored  # nothing was computed again
    state = torch.load(weights, weights_only=True)
    torch.save({name: value * 1.5 if value.ndim == 2 else value for name, value in state.items()}, weights)
    assert not torch.allclose(encode(weights), first)
    assert len(list(folder.iterdir())) == 4


def test_cached_answers_need_no_open_clip(tiny_clip: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, weights = tiny_clip
    settings = {"source": "open_clip", "model": model, "pretrained": str(weights)}
    first = encode_prompts(UNHEARD, **settings)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert torch.equal(encode_prompts(UNHEARD, **settings).vectors, first.vectors)


def test_weights_of_another_architecture_are_refused(tiny_clip: tuple[str, Path]) -> None:
    _, weights = tiny_clip
    with pytest.raises(ForgettableSegError, match=r"tiny\.pt cannot be loaded as weights of CLIP 'ViT-B-32'") as caught:
        encode_prompts(UNHEARD, source="open_clip", model="ViT-B-32", pretrained=str(weights))
    assert caught.value.code == ErrorCode.TEXT_UNAVAILABLE


@pytest.mark.usefixtures("open_clip")
@pytest.mark.parametrize(
    ("model", "pretrained", "names"),
    [("ViT-B-33", None, r"'ViT-B-33'.*'ViT-B-32'"), ("ViT-B-32", "gone.pt", r"'gone\.pt' is neither.*'openai'")],
)
def test_unknown_architecture_or_weights_are_named(model: str, pretrained: str | None, names: str) -> None:
    with pytest.raises(ForgettableSegError, match=names) as caught:
        encode_prompts(UNHEARD, source="open_clip", model=model, pretrained=pretrained)
    assert caught.value.code == ErrorCode.SETTING_INVALID


@pytest.mark.usefixtures("open_clip")
def test_offline_without_weights_gives_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    # What the variable HF_HUB_OFFLINE sets, which huggingface_hub reads once, when it is imported.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ForgettableSegError, match=r"not on this machine.*'file'.*'learned'") as caught:
        encode_prompts(UNHEARD, source="open_clip")
    assert caught.value.code == ErrorCode.TEXT_UNAVAILABLE
