"""Models are installed, listed, found and removed, and none is lost without being asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_models import make_package

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.models import registry
from ForgettableSegLib.models.archive import read_card
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.models.registry import find_model, install, list_models, remove
from ForgettableSegLib.resources import resources_dir, user_models_dir


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return make_package().write(tmp_path / "download.zip")


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Resources with a model of the test's own in them."""
    monkeypatch.setattr(registry, "resources_dir", lambda: tmp_path / "Resources")
    return make_package(seed=9).write(tmp_path / "Resources" / "Models" / "abdomen")


def users() -> list[str]:
    return [model.name for model in list_models() if not model.shipped]


def weights(path: Path) -> torch.Tensor:
    return ModelPackage.read(path).tensors["network.output.weight"]


def test_install_list_find_remove(packed: Path) -> None:
    assert users() == []
    model = install(packed)
    assert (model.name, model.shipped, model.problem) == ("abdomen", False, "")
    assert model.path == user_models_dir() / "abdomen"
    assert users() == ["abdomen"]
    assert model.card["licence"] == "CC-BY-SA 4.0"
    assert torch.equal(weights(find_model("Abdomen")), weights(packed))
    on_disk = sum(file.stat().st_size for file in model.path.iterdir())
    assert model.size_bytes == on_disk
    assert remove("abdomen") == on_disk
    assert users() == []
    assert list(user_models_dir().iterdir()) == []


def test_the_same_model_is_installed_once(packed: Path) -> None:
    first = install(packed)
    assert install(packed) == first
    assert install(first.path) == first
    assert users() == ["abdomen"]


def test_another_model_of_that_name_gets_a_number(packed: Path, tmp_path: Path) -> None:
    install(packed)
    second = install(make_package(seed=1).write(tmp_path / "other"))
    third = install(make_package(seed=2).write(tmp_path / "third"))
    assert [second.name, third.name] == ["abdomen-2", "abdomen-3"]
    assert second.card["name"] == "abdomen-2"
    assert not torch.equal(weights(find_model("abdomen")), weights(second.path))
    assert torch.equal(weights(find_model("abdomen")), weights(packed))
    assert install(tmp_path / "other") == second


def test_replacing_must_be_asked_for(packed: Path, tmp_path: Path) -> None:
    install(packed)
    other = make_package(seed=1).write(tmp_path / "other")
    assert install(other, replace=True).name == "abdomen"
    assert users() == ["abdomen"]
    assert torch.equal(weights(find_model("abdomen")), weights(other))


def test_install_under_another_name(packed: Path) -> None:
    assert install(packed, name="my liver").card["name"] == "my liver"
    assert users() == ["my liver"]
    with pytest.raises(ForgettableSegError, match="cannot be the name"):
        install(packed, name="../liver")


def test_long_names_can_be_numbered(packed: Path, tmp_path: Path) -> None:
    install(packed, name="x" * 64)
    other = make_package(seed=1).write(tmp_path / "other")
    assert install(other, name="x" * 64).name == "x" * 60 + "-2"


def test_a_bad_package_is_not_installed(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:-1000])
    with pytest.raises(ForgettableSegError) as caught:
        install(packed)
    assert caught.value.code == ErrorCode.MODEL_INVALID
    assert users() == []


def test_shipped_models_are_listed_and_stay(shipped: Path, packed: Path) -> None:
    assert [(model.name, model.shipped) for model in list_models()] == [("abdomen", True)]
    assert find_model("abdomen") == shipped
    with pytest.raises(ForgettableSegError, match="cannot be removed") as caught:
        remove("abdomen")
    assert caught.value.code == ErrorCode.OUTPUT_UNWRITABLE
    assert shipped.is_dir()
    assert install(packed, replace=True).name == "abdomen-2"  # a shipped model is not hidden by the user's
    assert install(shipped).shipped


def test_a_broken_model_is_listed_with_the_reason_and_can_be_removed(packed: Path) -> None:
    model = install(packed)
    (model.path / "weights.safetensors").write_bytes(b"")
    (listed,) = (model for model in list_models() if not model.shipped)
    assert "cut off" in listed.problem
    assert listed.card == {}
    assert listed.to_dict()["problem"] == listed.problem
    assert remove("abdomen") > 0
    assert users() == []


def test_find_by_path(packed: Path) -> None:
    assert find_model(packed) == packed
    assert find_model(str(packed)) == packed


def test_unknown_model_names_those_that_exist(packed: Path) -> None:
    install(packed)
    for action in (find_model, remove):
        with pytest.raises(ForgettableSegError, match=r"no model 'liver'.*abdomen") as caught:
            action("liver")
        assert caught.value.code == ErrorCode.MODEL_MISSING


def test_only_models_in_the_users_folder_are_removed(packed: Path, tmp_path: Path) -> None:
    install(packed)
    other = make_package(seed=1).write(tmp_path / "abdomen")
    for name in (str(other), "../models/abdomen", "..", "."):
        with pytest.raises(ForgettableSegError):
            remove(name)
    assert other.is_dir()
    assert users() == ["abdomen"]


def test_every_shipped_model_can_be_used() -> None:
    models = [model for model in list_models() if model.shipped]
    folders = [path for path in (resources_dir() / "Models").glob("*") if path.is_dir()]
    assert [model.problem for model in models] == [""] * len(folders)


@pytest.mark.parametrize("name", ["model.zip", "model"])
def test_a_card_is_read_alone_and_verified_where_asked(name: str, tmp_path: Path) -> None:
    path = make_package().write(tmp_path / name)
    assert read_card(path, verify=True) == read_card(path, verify=False) == ModelPackage.read(path).card


def test_a_changed_file_is_found_where_the_files_are_read(packed: Path) -> None:
    model = install(packed)
    weights_file = model.path / "weights.safetensors"
    content = bytearray(weights_file.read_bytes())
    content[-1] ^= 1
    weights_file.write_bytes(content)
    assert read_card(model.path, verify=False)["name"] == "abdomen"
    with pytest.raises(ForgettableSegError, match="was changed after it was written"):
        read_card(model.path, verify=True)
    weights_file.write_bytes(content[:-1])
    with pytest.raises(ForgettableSegError, match="is cut off"):
        read_card(model.path, verify=False)
