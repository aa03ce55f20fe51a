"""A package comes back as it was written, is rebuilt from its arguments, and tells nothing about the cases."""

from __future__ import annotations

import copy
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from small_models import PROMPTS, make_card, make_package

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.build import build_network


@pytest.fixture(params=["abdomen", "abdomen.zip"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_package().write(tmp_path / "new" / request.param)


def test_round_trip(written: Path) -> None:
    package, again = make_package(), ModelPackage.read(written)
    assert again.card == package.card
    assert again.documents == package.documents
    assert set(again.tensors) == set(package.tensors)
    for name, value in package.tensors.items():
        assert again.tensors[name].dtype == value.dtype
        assert torch.equal(again.tensors[name], value)
    assert [path.name for path in written.parent.iterdir()] == [written.name]  # no draft stays behind


def test_written_twice_is_the_same_bytes(tmp_path: Path) -> None:
    one, two = (make_package().write(tmp_path / name).read_bytes() for name in ("one.zip", "two.zip"))
    assert one == two


def test_what_a_package_offers(written: Path) -> None:
    package = ModelPackage.read(written)
    assert package.name == "abdomen"
    assert [each.name for each in package.task.classes] == ["liver", "spleen"]
    assert package.preprocessing.spacing == (None, 1.25, 1.25)
    assert package.patch_size == (16, 16)
    torch.testing.assert_close(package.text.norm(dim=1), torch.ones(2), atol=1e-3, rtol=0)
    assert package.prototypes["count"].tolist() == [40, 30, 2]
    assert package.prototypes["count"].dtype == torch.int64
    assert package.calibration["confidence_voxel"].shape == (64,)


def test_weights_are_16_bits_on_disk_and_the_rest_is_not(tmp_path: Path) -> None:
    path = make_package().write(tmp_path / "abdomen") / "weights.safetensors"
    with safe_open(path, framework="pt") as file:
        kinds = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 (not a mapping)
    assert {kind for name, kind in kinds.items() if name.startswith("network.")} == {torch.float16}
    assert kinds["prototypes.mean"] == kinds["prototypes.variance"] == kinds["calibration.confidence_voxel"]
    assert kinds["prototypes.mean"] == torch.float32


def test_network_is_rebuilt_and_computes_what_the_trained_one_did(written: Path) -> None:
    torch.manual_seed(5)
    card = make_card()
    trained = build_network(card["network"])
    torch.nn.init.normal_(trained.fusion.attention.out_proj.weight)  # so that the text takes part
    trained.set_text(torch.randn(2, 6))
    rebuilt = ModelPackage.read(ModelPackage.assemble(card, trained).write(written, replace=True)).network()
    image = torch.randn(2, 1, 19, 13)
    with torch.inference_mode():
        torch.testing.assert_close(rebuilt(image), trained(image), atol=0.02, rtol=0.02)  # 16 bits
    assert not rebuilt.training
    assert {p.dtype for p in rebuilt.parameters()} == {torch.float32}


def test_fine_tuning_a_network_leaves_its_package_alone() -> None:
    package = make_package()
    before = copy.deepcopy(dict(package.tensors))
    network = package.network().train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    network(torch.randn(1, 1, 16, 16)).square().mean().backward()
    optimiser.step()
    assert not torch.equal(network.output.weight, package.network().output.weight)
    assert all(torch.equal(package.tensors[name], value) for name, value in before.items())


def test_rebuilding_draws_no_random_numbers() -> None:
    package = make_package()
    state = torch.get_rng_state()
    package.network()
    assert torch.equal(torch.get_rng_state(), state)


def test_plain_network_without_text_or_prototypes(tmp_path: Path) -> None:
    plain = make_card()["network"] | {"fusion": "none", "text_shape": None}
    card = make_card(network=plain, text={})
    package = ModelPackage.read(ModelPackage.assemble(card, build_network(plain)).write(tmp_path / "plain.zip"))
    assert package.text is None
    assert package.prototypes is None
    assert package.calibration == {}
    assert package.network()(torch.randn(1, 1, 8, 8)).shape == (1, 3, 8, 8)


def test_prototypes_of_penultimate_features_fit() -> None:
    card = make_card()
    state = {"mean": torch.zeros(3, 4), "variance": torch.zeros(3), "count": torch.zeros(3)}
    package = ModelPackage.assemble(card, build_network(card["network"]), prototypes=state)
    assert package.prototypes["mean"].shape == (3, 4)


def test_nothing_is_replaced_unasked(written: Path) -> None:
    with pytest.raises(ForgettableSegError, match="exists already") as caught:
        make_package(seed=1).write(written)
    assert caught.value.code == ErrorCode.OUTPUT_UNWRITABLE
    assert torch.equal(ModelPackage.read(written).tensors["prototypes.mean"], make_package().tensors["prototypes.mean"])
    make_package(seed=1).write(written, replace=True)
    assert torch.equal(
        ModelPackage.read(written).tensors["prototypes.mean"], make_package(seed=1).tensors["prototypes.mean"]
    )
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ForgettableSegError, match="cannot be written") as caught:
        make_package().write(tmp_path / "file" / "model.zip")
    assert caught.value.code == ErrorCode.OUTPUT_UNWRITABLE


def test_package_holds_no_patch_path_or_case(written: Path, tmp_path: Path) -> None:
    """Its tensors are the network's, one mean and spread a class, and one-dimensional counts: nothing of an image."""
    folder = ModelPackage.read(written).write(tmp_path / "opened", private=["case_007", "P1"])
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.json", "weights.safetensors"]
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        assert file.metadata() in (None, {"format": "pt"})
        shapes = {name: tuple(file.get_tensor(name).shape) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    network = {
        f"network.{name}": tuple(v.shape) for name, v in build_network(make_card()["network"]).state_dict().items()
    }
    rest = {name: shape for name, shape in shapes.items() if name not in network}
    assert {name: shape for name, shape in shapes.items() if name in network} == network
    assert rest == {
        "prototypes.mean": (3, 3),
        "prototypes.variance": (3,),
        "prototypes.count": (3,),
        "calibration.confidence_voxel": (64,),
    }
    numbers = sum(torch.Size(shape).numel() * (2 if name in network else 4) for name, shape in shapes.items())
    numbers += 3 * 4  # counts take 8 bytes
    header = int.from_bytes((folder / "weights.safetensors").read_bytes()[:8], "little")
    assert (folder / "weights.safetensors").stat().st_size == 8 + header + numbers  # and nothing behind them
    text = (folder / "model.json").read_text(encoding="utf-8") + (folder / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert not re.search(r"case_007|\.nii|\.nrrd|\.dcm", text)


@pytest.mark.parametrize("name", ["bank.patches", "patches", "network.memory", "calibration.patch"])
def test_other_tensors_cannot_be_put_in(name: str) -> None:
    package = make_package()
    with pytest.raises(ForgettableSegError, match=f"does not belong to a model, '{re.escape(name)}'") as caught:
        ModelPackage(package.card, {**package.tensors, name: torch.zeros(4, 1, 16, 16)})
    assert caught.value.code == ErrorCode.MODEL_INVALID


@pytest.mark.parametrize(
    "changes",
    [
        {"provenance": {"source": "/srv/ann/data/liver"}},
        {"provenance": {"source": "from /data.zip"}},
        {"provenance": {"source": r"C:\Studies\Ann\data"}},
        {"provenance": {"source": "D:/studies"}},
        {"provenance": {"source": r"\\server\share\data"}},
        {"provenance": {"source": "~/data"}},
        {"provenance": {"source": "file:///data/x"}},
        {"provenance": {"command": "train --cases=/data/liver"}},
        {"description": "trained on smith_john.nii.gz"},
        {"attribution": "IM0001.dcm"},
        {"training": {"text_path": "/opt/text/store.npz"}},
        {"metrics": {"/mnt/data/a": 1.0}},
        {"text": {"source": "file", "encoder": "/opt/store", "prompts": PROMPTS}},
    ],
)
def test_paths_and_file_names_are_not_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    package = make_package(**changes)
    with pytest.raises(ForgettableSegError, match="holds a path or a file name") as caught:
        package.write(tmp_path / "model")
    assert caught.value.code == ErrorCode.MODEL_INVALID
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"provenance": {"cases": ["a", "b"]}},
        {"provenance": {"case_ids": ["a"]}},
        {"provenance": {"split": {"patients": {"a": 1}}}},
        {"provenance": {"subject": "a"}},
        {"training": {"bank": {"a": [1, 2]}}},
        {"metrics": {"held_out": {"Case_007": {"liver": 0.9}}}},
        {"provenance": {"hardest": "case_007"}},
    ],
)
def test_cases_are_not_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    package = make_package(**changes)
    with pytest.raises(ForgettableSegError, match="names cases"):
        package.write(tmp_path / "model", private=["case_007", "case_008"])
    assert list(tmp_path.iterdir()) == []


def test_documents_tell_nothing_either(tmp_path: Path) -> None:
    package = make_package()
    for text, reason in (("Hardest: case_007.", r"README\.md names a case"), ("See /srv/ann/x.", r"README\.md holds")):
        document = ModelPackage(package.card, package.tensors, {"README.md": text})
        with pytest.raises(ForgettableSegError, match=reason):
            document.write(tmp_path / "model", private=["case_007"])


def test_a_class_may_be_called_what_a_case_is_called(tmp_path: Path) -> None:
    written = make_package().write(tmp_path / "model", private=["liver", "T2", "abdomen"])
    assert ModelPackage.read(written).task.classes[0].name == "liver"


def test_text_with_slashes_is_no_path(tmp_path: Path) -> None:
    words = "Liver/spleen, mean/SD 0.9 / 0.1 (and/or), 2026/11/21, https://example.org/a/b.html, ./runs/a, x/y/z"
    written = make_package(description=words, provenance={"cases": 12, "groups": 3}).write(tmp_path / "model")
    assert ModelPackage.read(written).card["description"] == words


@pytest.mark.parametrize("name", ["my model", "Abdomen_v1.2-b", "a", "x" * 64, "console"])
def test_names_that_are_fine(name: str) -> None:
    assert make_package(name=name).renamed(name).name == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a.", "a ", "x" * 65, "CON", "nul.txt"]
)
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(ForgettableSegError, match="cannot be the name") as caught:
        make_package(name=name)
    assert caught.value.code == ErrorCode.MODEL_INVALID


def test_numbers_too_large_for_16_bits_are_refused() -> None:
    card = make_card()
    network = build_network(card["network"])
    with torch.no_grad():
        network.output.weight[0] = 1e6
    with pytest.raises(ForgettableSegError, match=r"network\.output\.weight.*not finite"):
        ModelPackage.assemble(card, network)


def test_card_is_json_that_people_can_read(written: Path, tmp_path: Path) -> None:
    folder = ModelPackage.read(written).write(tmp_path / "opened")
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert card["schema"] == 1
    assert set(card["files"]) == {"weights.safetensors", "README.md"}
    assert card["files"]["weights.safetensors"]["bytes"] == (folder / "weights.safetensors").stat().st_size


def test_what_a_file_manager_puts_into_an_archive_is_left_aside(tmp_path: Path) -> None:
    folder = make_package().write(tmp_path / "abdomen")
    with zipfile.ZipFile(tmp_path / "finder.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"abdomen/{file.name}")
            archive.writestr(f"__MACOSX/abdomen/._{file.name}", b"x")
        archive.writestr("abdomen/.DS_Store", b"x")
    assert ModelPackage.read(tmp_path / "finder.zip").name == "abdomen"
