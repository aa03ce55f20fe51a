"""Images from label maps alone: places, intensities, and runs that are trained on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from synthetic import TASK, write_cases
from training_cases import Listener, resume, train

from ForgettableSegLib.cases.cache import CaseCache, PreparedCase
from ForgettableSegLib.cases.case import Case, CaseList
from ForgettableSegLib.cases.intensity import image_scaling
from ForgettableSegLib.cases.recipe import Preprocessing
from ForgettableSegLib.cases.synthesis_recipe import Recipe, Tissue, find_recipe, opposite_sides
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.training.deformation import Deformation, deformed
from ForgettableSegLib.training.patches import PatchReader, PatchSampler
from ForgettableSegLib.training.synthesis import (
    ImageSynthesis,
    Intensities,
    bias_field,
    resolution_matrix,
    sample_tissues,
    z_score,
)

SIDED = Task(
    name="sides",
    modality="MR",
    channels=("MR",),
    classes=tuple(SegmentClass(name, value) for name, value in (("left eye", 3), ("nose", 7), ("right eye", 5))),
)
BRAIN = Path(__file__).parents[1] / "Benchmarks" / "brain.task.json"


def sided_volume() -> np.ndarray:
    """A label map with the values of SIDED in random blocks, [z, y, x]."""
    blocks = np.random.default_rng(0).choice([0, 3, 5, 7], size=(6, 7, 8))
    return blocks.repeat(3, 0).repeat(3, 1).repeat(3, 2).astype(np.uint8)


def prepared_map(folder: Path, spacing: tuple[float, ...] = (1, 1, 1)) -> tuple[PreparedCase, Recipe]:
    """A label-map case of SIDED, prepared in coronal slices, with its recipe."""
    path = folder / "map.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(sided_volume()), str(path))
    recipe = find_recipe("random", SIDED)
    preprocessing = Preprocessing(2, "MR", 1, spacing)
    cases = [Case("map", "map", (path,), path)]
    (case,) = CaseCache(folder / "cache").prepare(cases, SIDED, preprocessing, recipe=recipe)
    return case, recipe


def label_maps(folder: Path, number: int) -> CaseList:
    """Cases of the made-up balls of which only the label maps are given."""
    found = write_cases(folder, number)
    return CaseList(tuple(Case(case.case_id, case.group, (case.label,), case.label) for case in found), TASK, folder)


def test_a_recipe_pairs_the_sides_by_the_names_of_the_classes() -> None:
    """Exchanging the sides twice changes nothing, and both sides share one tissue."""
    opposite = opposite_sides(SIDED)
    assert opposite.tolist() == [0, 3, 2, 1]
    assert opposite[opposite].tolist() == [0, 1, 2, 3]
    recipe = find_recipe("random", SIDED)
    assert [tissue.values for tissue in recipe.tissues] == [(0,), (3, 5), (7,)]
    assert dict(zip(recipe.values, recipe.classes.tolist(), strict=True)) == {0: 0, 3: 1, 5: 3, 7: 2}


def test_the_recipe_of_heads_merges_values_and_shares_tissues_between_sides() -> None:
    """Of the 54 values each has a tissue, and the 32 structures hold those that belong to them."""
    task = Task.from_dict(json.loads(BRAIN.read_text(encoding="utf-8")))
    recipe = find_recipe("head", task)
    names = ["background", *(each.name for each in task.classes)]
    class_of = {value: names[index] for value, index in zip(recipe.values, recipe.classes, strict=True)}
    assert len(recipe.values) == 54
    assert (class_of[25], class_of[57]) == ("left cerebral white matter", "right cerebral white matter")
    assert (class_of[136], class_of[164]) == ("left lateral ventricle", "right inferior lateral ventricle")
    assert all(class_of[value] == "background" for value in (0, 30, 62, 72, 85, 502, 530))
    tissue_of = dict(zip(recipe.values, recipe.tissue_of_value.tolist(), strict=True))
    for index, other in enumerate(recipe.opposite.tolist()):
        values = [value for value, one in class_of.items() if one == names[index]]
        mirrored = [value for value, one in class_of.items() if one == names[other]]
        assert index == 0 or {tissue_of[v] for v in values} == {tissue_of[v] for v in mirrored}
    assert recipe.opposite.tolist() != list(range(33))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"tissues": [{"values": [3, 5, 7]}]}, "begin with the value 0"),
        ({"tissues": [{"values": [0, 3, 5]}]}, "no tissue holds the label value 7"),
        ({"tissues": [{"values": [0]}, {"values": [3, 5, 7, 3]}]}, "stands in two tissues"),
        ({"tissues": [{"values": [0]}, {"values": [3, 5, 7], "sd": 4}]}, "cannot have 'sd'"),
        ({"tissues": [{"values": [0]}, {"values": [3, 5, 7], "mean": -4}]}, "negative"),
        ({}, "cannot be read"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_in_one_sentence(tmp_path: Path, content: dict, fault: str) -> None:
    """The sentence names the file and the fault."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ForgettableSegError, match=fault) as caught:
        find_recipe(str(path), SIDED)
    assert caught.value.code is ErrorCode.SETTING_INVALID
    assert "mine.json" in caught.value.message


def test_an_unknown_recipe_is_refused_with_those_that_there_are() -> None:
    """A slip of the pen is found at once."""
    with pytest.raises(ForgettableSegError, match="random, head"):
        find_recipe("haed", SIDED)


def test_a_label_map_that_is_not_moved_gives_the_patch_itself(tmp_path: Path) -> None:
    """The identity reads the very voxels, neighbours included, and 0 outside."""
    case, recipe = prepared_map(tmp_path)
    native = sided_volume().transpose(1, 0, 2)
    assert np.array_equal(np.array(recipe.values)[case.image[0]], native)
    values = deformed(case, (4, 2, 3), (1, 8, 10), 2, Deformation.identity())
    assert np.array_equal(values, case.image[0][2:7, 2:10, 3:13])
    over = deformed(case, (0, -3, 20), (1, 8, 10), 1, Deformation.identity())
    assert not over[0].any()
    assert not over[:, :3].any()
    assert not over[:, :, 4:].any()
    assert np.array_equal(over[1:, 3:, :4], case.image[0][:2, :5, 20:24])
    reader = PatchReader([case], (8, 10), context_slices=2, recipe=recipe)
    batch = reader.read(torch.tensor([[0, 4, 2, 3]]))
    assert np.array_equal(batch.labels[0], case.label[4, 2:10, 3:13])
    assert np.array_equal(batch.images[0], recipe.tissue_of_value[values].astype(np.float32))


def test_labels_are_those_of_the_nearest_voxel_of_the_moved_place(tmp_path: Path) -> None:
    """Each voxel of a turned, scaled patch is looked up one by one, at twice the spacing of the label map."""
    case, _ = prepared_map(tmp_path, (2, 2, 2))
    change = Deformation.draw(np.random.default_rng(3), (2, 16, 16), sides_axis=2)
    change = Deformation(change.matrix, None, change.flipped)
    corner, shape = (3, 1, 2), (1, 8, 8)
    values = deformed(case, corner, shape, 1, change)
    centre = np.array(corner) + (np.array(shape) - 1) / 2
    step = np.array(case.grid.spacing)
    for s in range(3):
        for h in range(8):
            for w in range(8):
                offset = (np.array([s - 1, h - 3.5, w - 3.5])) * step
                place = (centre + 0.5) * np.array(case.image.shape[1:]) / case.grid.shape - 0.5 + change.matrix @ offset
                index = np.floor(place + 0.5 + 1e-6).astype(int)
                inside = (index >= 0).all() and (index < case.image.shape[1:]).all()
                assert values[s, h, w] == (case.image[0][tuple(index)] if inside else 0)


def test_a_flip_exchanges_the_sides(tmp_path: Path) -> None:
    """The labels of a flipped patch are the mirror image with left for right; the tissues only the mirror image."""
    case, recipe = prepared_map(tmp_path)
    plain = deformed(case, (4, 2, 3), (1, 8, 10), 0, Deformation.identity())
    turned = Deformation(np.diag([1, 1, -1]).astype(np.float32), None, flipped=True)
    flipped = deformed(case, (4, 2, 3), (1, 8, 10), 0, turned)
    assert np.array_equal(flipped, plain[:, :, ::-1])
    reader = PatchReader([case], (8, 10), recipe=recipe, sides_axis=2)
    for draw in range(8):
        labels = reader.read(torch.tensor([[0, 4, 2, 3]]), draw).labels[0].numpy()
        extent = [length * step for length, step in zip((1, 8, 10), case.spacing, strict=True)]
        change = Deformation.draw(np.random.default_rng((draw, 0)), extent, sides_axis=2)
        classes = recipe.classes[deformed(case, (4, 2, 3), (1, 8, 10), 0, change)[0]]
        assert np.array_equal(labels, recipe.opposite[classes] if change.flipped else classes)


def test_patches_depend_on_their_draw_alone(tmp_path: Path) -> None:
    """The same draw reads the same patches, another one others; ranks and replays have draws of their own."""
    case, recipe = prepared_map(tmp_path)
    reader = PatchReader([case], (12, 12), context_slices=1, recipe=recipe)
    references = torch.tensor([[0, 4, 2, 3], [0, 4, 2, 3]])
    first, again, other = (reader.read(references, draw) for draw in (5, 5, 6))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.images[0], first.images[1])
    assert torch.equal(first.ids, torch.tensor([4, 4]))
    ranks = [PatchSampler(reader, batch_size=4, foreground_share=1, seed=3, rank=r, world_size=2) for r in (0, 1)]
    draws = [rank.draw(i, replay=replay) for rank in ranks for i in range(5) for replay in (False, True)]
    assert len(set(draws)) == len(draws)


def test_a_voxel_has_the_distribution_of_its_tissue() -> None:
    """Mean and deviation are the drawn ones, and no tissue tells of another."""
    tissues = torch.arange(3).repeat_interleave(20000).view(1, 1, 300, 200)
    drawn = Intensities(torch.tensor([[10.0, 50.0, 200.0]]), torch.tensor([[1.0, 20.0, 0.0]]))
    image = sample_tissues(tissues, drawn, torch.Generator().manual_seed(1))
    for tissue in range(3):
        values = image[tissues == tissue]
        assert float(values.mean()) == pytest.approx(float(drawn.means[0, tissue]), abs=0.5)
        assert float(values.std()) == pytest.approx(float(drawn.deviations[0, tissue]), rel=0.02)


def test_means_near_a_scan_are_those_of_the_recipe_and_others_are_anything() -> None:
    """Half of the samples look like the scan; the others' tissues are not ordered by it, so nothing leaks from it."""
    tissues = (Tissue((0,), 5, 1, 2), Tissue((1,), 200, 5, 10), Tissue((2,), 100, 5, 10))
    recipe = Recipe("test", tissues, np.arange(3, dtype=np.uint8), np.arange(3, dtype=np.uint8))
    like_scan = torch.arange(4000) < 2000
    drawn = ImageSynthesis(recipe).draw_intensities(like_scan, torch.Generator().manual_seed(0))
    near, wide = drawn.means[like_scan], drawn.means[~like_scan]
    assert near.mean(0).tolist() == pytest.approx([5, 200, 100], abs=0.5)
    assert near.std(0).tolist() == pytest.approx([1, 5, 5], rel=0.1)
    assert float((wide[:, 1] > wide[:, 2]).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert abs(float(torch.corrcoef(wide.T)[1, 2])) < 0.06
    assert float(wide[:, 1:].min()) < 10
    assert float(wide[:, 1:].max()) > 245


def test_a_resolution_keeps_a_constant_and_blurs_a_point() -> None:
    """Rows add up to 1, a blur has its variance, and a coarse axis is made of straight lines between samples."""
    sigma, step, phase = torch.tensor([1.5, 0.1, 0.1]), torch.tensor([1.0, 1.0, 4.0]), torch.tensor([0.0, 0.0, 1.0])
    matrix = resolution_matrix(41, sigma, step, phase)
    assert torch.allclose(matrix.sum(2), torch.ones(3, 41), atol=1e-5)
    places = torch.arange(41) - 20.0
    assert float((matrix[0, 20] * places**2).sum()) == pytest.approx(1.5**2, rel=0.01)
    assert torch.allclose(matrix[1], torch.eye(41), atol=1e-5)
    line = matrix[2] @ (torch.arange(41.0) ** 2)
    assert torch.allclose(line[1:38:4], torch.arange(1.0, 38, 4) ** 2, atol=1e-2)
    assert float(line[3]) == pytest.approx((1 + 25) / 2, abs=1e-2)


def test_a_bias_field_is_smooth_and_positive() -> None:
    """Neighbouring voxels hardly differ, and an axis of a few slices is constant."""
    field = bias_field((3, 5, 64, 64), torch.Generator().manual_seed(0))
    assert field.shape == (3, 1, 64, 64)
    assert float(field.min()) > 0
    assert float(field.std()) > 0.01
    assert float(field.log().diff(dim=-1).abs().max()) < 0.1


@pytest.mark.parametrize("share", [0.0, 0.005, 0.3])
def test_a_z_score_is_that_of_preprocessing(share: float) -> None:
    """Zeros are left out where there are many, and count where there are few, as in `image_scaling`."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 4, 50, 60, generator=generator) + 0.1
    images[torch.rand(images.shape, generator=generator) < share] = 0
    for one, scored in zip(images, z_score(images), strict=True):
        expected = one.numpy().copy()
        image_scaling(expected).apply(expected)
        np.testing.assert_allclose(scored.numpy(), expected, atol=1e-4)
    assert torch.equal(z_score(torch.full((1, 2, 3, 3), 7.0)), torch.zeros(1, 2, 3, 3))


def test_a_batch_is_made_where_it_is_chosen_and_the_same_again() -> None:
    """Real samples stay as they are; what is cut away has no label."""
    tissues = (Tissue((0,)), Tissue((1,), inside=True), Tissue((2,)))
    recipe = Recipe("test", tissues, np.arange(3, dtype=np.uint8), np.arange(3, dtype=np.uint8))
    generator = np.random.default_rng(0)
    maps = generator.integers(3, size=(16, 6, 8)).repeat(4, 1).repeat(4, 2)
    images = torch.from_numpy(maps.astype(np.float32))[:, None].repeat(1, 6, 1, 1)
    labels = torch.from_numpy(maps.astype(np.uint8))
    synthesis = ImageSynthesis(recipe, context_slices=1)
    chosen = torch.arange(16) % 2 == 0
    made, cut = synthesis(images, labels, chosen, 4)
    again, _ = synthesis(images, labels, chosen, 4)
    assert torch.equal(made, again)
    assert torch.equal(made[~chosen], images[~chosen])
    assert torch.equal(cut[~chosen], labels[~chosen])
    assert torch.isfinite(made).all()
    assert float(made[chosen].flatten(1).std(1).min()) > 0.1
    assert not torch.equal(made[0, :3], made[0, 3:]), "each channel has its own contrast"
    assert ((cut == labels) | (cut == 0)).all()
    assert not torch.equal(cut, labels), "in 8 samples some are stripped or cut"
    other, _ = synthesis(images, labels, chosen, 5)
    assert not torch.equal(other[chosen], made[chosen])


def test_a_run_learns_from_label_maps_alone_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Validation and held-out cases get image files; a run that was stopped ends with the same weights."""
    settings = {"synthesis": "random", "context_slices": 1, "iterations": 12, "checkpoint_every": 4}
    cases = label_maps(tmp_path / "maps", 6)
    whole = train(cases, tmp_path / "whole", settings=settings)
    judging = [case for case in whole.config.cases if not case.is_label_map]
    assert {case.case_id for case in judging} == {*whole.config.split.validation, *whole.config.split.test}
    assert all(path.is_relative_to(tmp_path / "whole") for case in judging for path in case.files)
    for case in judging:
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(case.label)))
        original = tmp_path / "maps" / f"{case.case_id}_label.nii.gz"
        assert np.array_equal(label, sitk.GetArrayFromImage(sitk.ReadImage(str(original))))
        image = sitk.ReadImage(str(case.images[0]))
        assert image.GetSpacing() == pytest.approx((1, 1, 2))
        assert sitk.GetArrayFromImage(image).std() > 1
    assert whole.validation_dice is not None
    with pytest.raises(Cancelled):
        train(cases, tmp_path / "cut", Listener(stop_at=7), settings=settings)
    rest = resume(tmp_path / "cut")
    weights = whole.network.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in rest.network.state_dict().items())


def test_a_run_mixes_images_and_label_maps(tmp_path: Path) -> None:
    """Both kinds of cases are drawn, and the real ones keep their images."""
    real, alone = write_cases(tmp_path / "real", 3), label_maps(tmp_path / "maps", 3)
    renamed = [Case(f"map{i}", f"map{i}", case.images, case.label) for i, case in enumerate(alone)]
    mixed = CaseList((*real.cases, *renamed), TASK, tmp_path)
    outcome = train(mixed, tmp_path / "run", settings={"synthesis": "random", "iterations": 4})
    kinds = {case.is_label_map for case in outcome.config.select(outcome.config.split.train)}
    assert kinds == {True, False}


def test_label_maps_alone_are_refused_without_synthesis(tmp_path: Path) -> None:
    """A folder given twice by mistake is said so before anything trains."""
    with pytest.raises(ForgettableSegError, match="no image but its own label map") as caught:
        train(label_maps(tmp_path / "maps", 3), tmp_path / "run")
    assert caught.value.code is ErrorCode.SETTING_INVALID


def test_a_value_that_the_recipe_lacks_is_named(tmp_path: Path) -> None:
    """The case is left out with a sentence that names file and value."""
    path = tmp_path / "map.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((4, 4, 4), 9, dtype=np.uint8)), str(path))
    with pytest.raises(ForgettableSegError, match=r"map\.nii\.gz holds the label value 9"):
        find_recipe("random", TASK).read(Case("map", "map", (path,), path))
