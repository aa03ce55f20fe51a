"""ProLearn: prototypes of what is said of the cases, their fit and look-up, and runs with much, little and no text."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import TASK, write_cases
from training_cases import CPU, Listener, assert_same, resume, train

from ForgettableSegLib.cases.case import Case, CaseList
from ForgettableSegLib.cases.case_list import cases_from_dicts, read_case_list
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.experiments.tags import tags_of, tags_of_cases
from ForgettableSegLib.inference.predictor import Predictor
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.build import build_network
from ForgettableSegLib.network.fusion import TextGuidedFusion
from ForgettableSegLib.network.guidance import PrototypeFusion, Told, telling
from ForgettableSegLib.text.case_texts import LENGTH, encode_case_texts, read_texts, source_for_cases
from ForgettableSegLib.training.export import model_package
from ForgettableSegLib.training.prototype_fit import class_mean_features, proxy_labels, representatives

REPORTS = ("a bright ball on the left", "a dark ball on the right", "", "a bright ball on the left", "", "")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> CaseList:
    """Six cases, three of which have a report."""
    listed = write_cases(tmp_path_factory.mktemp("cases"), 6, shape=(4, 20, 18))
    told = (dataclasses.replace(case, text=text) for case, text in zip(listed, REPORTS, strict=True))
    return dataclasses.replace(listed, cases=tuple(told))


def fusion(prototypes: int, seed: int = 0) -> PrototypeFusion:
    """A fusion of 8 channels and texts of 6 numbers, whose output projection is not zero."""
    torch.manual_seed(seed)
    made = PrototypeFusion(channels=8, prototypes=prototypes, length=6, num_heads=2)
    torch.nn.init.normal_(made.attention.out_proj.weight)
    return made


def test_one_prototype_is_the_plain_prompt() -> None:
    ours, plain = (
        fusion(1),
        TextGuidedFusion(mode="visual_query", spatial_dims=2, channels=8, text_shape=(1, 6), num_heads=2),
    )
    response = torch.randn(1, 6)
    ours.set_pairs(torch.randn(1, 8), response)
    plain.set_text(response)
    plain.load_state_dict({k: v for k, v in ours.state_dict().items() if k in plain.state_dict()} | {"text": response})
    visual = torch.randn(3, 8, 4, 5)
    torch.testing.assert_close(ours(visual), plain(visual))


def test_the_order_of_the_pairs_is_nothing_and_the_dead_do_not_answer() -> None:
    ours = fusion(7)
    queries, responses = torch.randn(5, 8), torch.randn(5, 6)
    ours.set_pairs(queries, responses)
    visual = torch.randn(2, 8, 3, 3)
    before = ours(visual)
    order = torch.randperm(5)
    ours.set_pairs(queries[order], responses[order])
    torch.testing.assert_close(ours(visual), before)
    index, weights = ours.look_up(ours.embed(visual))
    cosines = torch.cosine_similarity(ours.embed(visual)[:, None], queries[order][None], dim=2)
    best, expected = cosines.topk(3, dim=1)
    assert torch.equal(index, expected)
    torch.testing.assert_close(weights, (best / 0.1).softmax(1))
    # With two alive the third of three weighs nothing.
    ours.set_pairs(queries[:2])
    index, weights = ours.look_up(ours.embed(visual))
    assert weights[:, 2].max() == 0
    assert set(index[:, :2].flatten().tolist()) <= {0, 1}


def test_weights_share_the_attention_out() -> None:
    # Two pairs with the same response are one pair with that response, however the weights are shared between them.
    ours, visual = fusion(2), torch.randn(2, 8, 3, 3)
    response = torch.randn(1, 6)
    ours.set_pairs(torch.randn(2, 8), response.expand(2, 6))
    both = ours(visual)
    ours.set_pairs(torch.randn(1, 8), response)
    torch.testing.assert_close(ours(visual), both)


def test_what_is_told_takes_the_place_of_the_answer_and_responses_learn() -> None:
    ours, visual = fusion(4), torch.randn(2, 8, 3, 3)
    ours.set_pairs(torch.randn(4, 8), torch.randn(4, 6))
    answered = ours(visual)
    report = torch.randn(2, 6)
    with telling(ours, Told(report, torch.tensor([True, False]))):
        told = ours(visual)
    torch.testing.assert_close(told[1], answered[1])
    assert not torch.allclose(told[0], answered[0])
    assert torch.equal(ours(visual), answered), "nothing is remembered"
    ours.set_pairs(torch.randn(1, 8), report[:1])
    torch.testing.assert_close(ours(visual)[0], told[0], msg="a report is the prompt that it would be")
    answered.sum().backward()
    assert ours.responses.grad.abs().sum() > 0


def test_a_new_guidance_leaves_the_plain_network_and_is_looked_up_in_no_time() -> None:
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "features": (4, 6, 8)}
    image = torch.randn(2, 1, 16, 12)
    torch.manual_seed(1)
    plain = build_network(arguments)
    torch.manual_seed(1)
    guided = build_network({**arguments, "fusion": "visual_query", "text_shape": (2, 6), "prototypes": 5})
    assert torch.equal(guided(image), plain(image))
    large = PrototypeFusion(channels=256, prototypes=48, length=512, num_heads=4)
    large.set_pairs(torch.randn(48, 256), torch.randn(48, 512))
    assert sum(parameter.numel() for parameter in large.parameters()) < 1_000_000
    query = torch.randn(1, 256)
    large.look_up(query)
    begun = time.process_time()
    for _ in range(20):
        large.look_up(query)
    assert (time.process_time() - begun) / 20 < 0.005


def test_groups_of_reports_and_the_patches_that_stand_for_them() -> None:
    torch.manual_seed(0)
    centres = torch.eye(6)[:3] * 10
    vectors = torch.cat([centre + 0.1 * torch.randn(10, 6) for centre in centres])
    labels = proxy_labels(vectors)
    assert [len(labels[n : n + 10].unique()) for n in (0, 10, 20)] == [1, 1, 1]
    assert len(labels.unique()) == 3
    few = proxy_labels(torch.tensor([[1.0, 0], [0, 1], [1, 0]]))
    assert few[0] == few[2] != few[1]
    images = torch.randn(30, 4)
    chosen = representatives(images, labels, 7, seed=0)
    assert len(chosen) == len(chosen.unique()) == 6, "two of each group"
    assert torch.equal(chosen, representatives(images, labels, 7, seed=0))
    # Clusters that would be empty are not there: a group of one patch seen many times has one pair.
    assert len(representatives(torch.ones(9, 4), torch.zeros(9), 5, seed=0)) == 1
    assert len(representatives(images, torch.arange(30), 4, seed=0)) == 4


def test_without_reports_responses_start_from_class_means() -> None:
    features, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 2, (2, 4, 4))
    row = class_mean_features(features, labels, 10)
    means = torch.cat([features[0][:, labels[0] == c].mean(1) for c in (0, 1)])
    torch.testing.assert_close(row[0], torch.nn.functional.normalize(means.repeat(2)[:10], dim=0))
    assert class_mean_features(features, torch.full((2, 4, 4), 255), 4).abs().max() == 0


def test_texts_are_as_near_as_they_share_words() -> None:
    one, other, third = encode_case_texts(
        ["left, large", "Large left", "right"], source="words", model=None, pretrained=None
    )
    torch.testing.assert_close(one, other)
    assert one.shape == (LENGTH,)
    assert abs(float(one @ third)) < 0.3
    assert source_for_cases("file") == source_for_cases("learned") == "words"
    assert source_for_cases("open_clip") == "open_clip"


def test_texts_come_from_tables_lists_and_files(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b.txt").write_text("  dark\n", encoding="utf-8")
    (tmp_path / "cases.csv").write_text("id,image,report\nx,a.nii.gz,bright\ny,b.nii.gz,\n")
    assert [case.text for case in read_case_list(tmp_path / "cases.csv")] == ["bright", "dark"]
    assert [case.text for case in read_case_list(tmp_path)] == ["", "dark"]
    listed = cases_from_dicts([{"id": "x", "image": "a.nii.gz", "text": "said"}], folder=tmp_path)
    assert listed.cases[0].text == "said"
    assert Case.from_dict(listed.cases[0].to_dict()) == listed.cases[0]
    with pytest.raises(ForgettableSegError, match="text of case 1"):
        cases_from_dicts([{"id": "x", "image": "a.nii.gz", "text": 5}])


def test_tags_tell_side_size_and_position(cases: CaseList) -> None:
    label = np.zeros((10, 10, 10), dtype=np.uint8)
    label[8:, 4:6, :2] = 1
    # Along x the first voxels are on the patient's right, along z the last ones at the top; and the other way round.
    straight = Geometry((10, 10, 10), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    turned = dataclasses.replace(straight, direction=(-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0))
    assert tags_of(label, straight, TASK.classes) == "bright ball medium right upper"
    assert tags_of(label, turned, TASK.classes) == "bright ball medium left lower"
    assert tags_of(label * 0, straight, TASK.classes) == "nothing"
    assert tags_of_cases(cases.cases, 0.0, TASK, seed=0) == {}
    some = tags_of_cases(cases.cases, 0.5, TASK, seed=0)
    assert len(some) == 3
    assert all("bright ball" in text and "dark ball" in text for text in some.values())


@pytest.mark.parametrize("texts", [True, False])
def test_a_guided_run_resumes_bit_for_bit_and_needs_no_text_afterwards(
    cases: CaseList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: bool
) -> None:
    if not texts:
        cases = dataclasses.replace(cases, cases=tuple(dataclasses.replace(case, text="") for case in cases))
    settings = {
        "guidance": "psa",
        "iterations": 10,
        "validate_every": 5,
        "weight_average": 0.9,
        "split_ratios": [4, 1, 1],
    }
    whole = train(cases, tmp_path / "whole", settings=settings)
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "cut", Listener(stop_at=4), settings=settings)
    assert_same(whole, resume(tmp_path / "cut"))
    told = read_texts(tmp_path / "whole")
    with_text = {case.case_id for case in whole.config.select(whole.config.split.train) if case.text}
    assert set(told) == with_text
    assert bool(told) == texts
    path = model_package(whole, device=CPU, calibration={}).write(tmp_path / "model")
    content = b"".join(file.read_bytes() for file in path.iterdir())
    assert b"bright ball on the left" not in content
    monkeypatch.setitem(sys.modules, "sklearn", None)  # the fit alone needs it
    package = ModelPackage.read(path)
    assert package.network().fusion.is_fitted
    predictor = Predictor(package, CPU)
    case = dataclasses.replace(cases.cases[0], text="")
    silent = predictor.segment_case(case, probabilities=True)
    spoken = predictor.segment_case(dataclasses.replace(case, text="something else"), probabilities=True)
    assert np.array_equal(silent.probabilities, spoken.probabilities) != texts, "a text is used where texts were learnt"
    with pytest.raises(ForgettableSegError, match="scikit-learn") as caught:
        train(cases, tmp_path / "again", settings=settings)
    assert caught.value.code == ErrorCode.PACKAGE_MISSING
