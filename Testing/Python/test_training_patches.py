"""Which patches are drawn, and what is read for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import TASK, write_cases

from ForgettableSegLib.cases.cache import CaseCache, PreparedCase
from ForgettableSegLib.cases.labels import IGNORE_LABEL
from ForgettableSegLib.cases.preprocessing import plan_preprocessing
from ForgettableSegLib.training.patches import PatchReader, PatchSampler, Prefetcher


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedCase]:
    folder = tmp_path_factory.mktemp("patches")
    cases = [*write_cases(folder / "a", 2), *write_cases(folder / "b", 1, first_seed=9, shape=(6, 40, 36))]
    preprocessing = plan_preprocessing(cases, TASK, spatial_dims=2)
    return CaseCache(folder / "cache").prepare(cases, TASK, preprocessing)


def test_a_patch_is_what_lies_there_and_padding_has_no_label(prepared: list[PreparedCase]) -> None:
    reader = PatchReader(prepared, (16, 16))
    shape = prepared[0].label.shape
    inside = reader.read(torch.tensor([[0, 3, 2, 4]]))
    np.testing.assert_array_equal(inside.images[0], prepared[0].image[:, 3, 2:18, 4:20])
    np.testing.assert_array_equal(inside.labels[0], prepared[0].label[3, 2:18, 4:20])
    over = reader.read(torch.tensor([[0, 0, -4, shape[2] - 6]]))
    assert (over.labels[0, :4] == IGNORE_LABEL).all()
    assert (over.labels[0, :, 6:] == IGNORE_LABEL).all()
    np.testing.assert_array_equal(over.images[0, :, 4:, :6], prepared[0].image[:, 0, :12, -6:])
    assert over.images[0, :, :4].abs().max() == 0


def test_ids_lead_back_to_case_and_slice(prepared: list[PreparedCase]) -> None:
    reader = PatchReader(prepared, (16, 16))
    references = PatchSampler(reader, batch_size=64, foreground_share=0.5, seed=1).references(0)
    batch = reader.read(references)
    assert reader.num_slices == sum(case.label.shape[0] for case in prepared)
    for number, reference in zip(batch.ids.tolist(), references.tolist(), strict=True):
        assert reader.locate(number) == (reference[0], reference[1])


@pytest.mark.parametrize("patch", [(16, 16), (64, 20), (4, 16, 16), (32, 32, 32)])
def test_patches_lie_inside_or_around_the_case(prepared: list[PreparedCase], patch: tuple[int, ...]) -> None:
    reader = PatchReader(prepared, patch)
    sampler = PatchSampler(reader, batch_size=200, foreground_share=0.5, seed=1)
    references = sampler.references(7).numpy()
    for case, *corner in references.tolist():
        for start, length, extent in zip(corner, reader.patch_shape, prepared[case].label.shape, strict=True):
            assert start >= 0 or length > extent
            assert start + length <= extent or length >= extent
            assert start < extent
            assert start + length > 0
    assert reader.read(torch.from_numpy(references[:4])).labels.shape == (4, *patch)


def test_the_foreground_share_is_centred_on_foreground(prepared: list[PreparedCase]) -> None:
    reader = PatchReader(prepared, (12, 12))
    batch = reader.read(PatchSampler(reader, batch_size=300, foreground_share=1.0, seed=1).references(0))
    has_foreground = ((batch.labels > 0) & (batch.labels != IGNORE_LABEL)).flatten(1).any(1)
    assert has_foreground.float().mean() > 0.95


def test_draws_are_even_over_slices(prepared: list[PreparedCase]) -> None:
    reader = PatchReader(prepared, (16, 16))
    sampler = PatchSampler(reader, batch_size=100, foreground_share=0.0, seed=3)
    drawn = torch.cat([reader.read(sampler.references(i)).ids for i in range(60)])
    counts = torch.bincount(drawn, minlength=reader.num_slices).double()
    expected = counts.sum() / reader.num_slices
    # Chi-square with 25 degrees of freedom: above 60 once in ten thousand seeds, and this seed is fixed.
    assert float(((counts - expected) ** 2 / expected).sum()) < 60


def test_ranks_share_the_batch_of_one_process(prepared: list[PreparedCase]) -> None:
    reader = PatchReader(prepared, (16, 16))
    options = {"batch_size": 8, "foreground_share": 0.5, "seed": 4}
    alone = PatchSampler(reader, **options).references(5)
    shares = [PatchSampler(reader, rank=rank, world_size=2, **options).references(5) for rank in range(2)]
    assert torch.equal(torch.stack(shares, dim=1).reshape(8, 4), alone)


def test_prefetching_changes_neither_order_nor_content(prepared: list[PreparedCase]) -> None:
    reader = PatchReader(prepared, (16, 16))
    sampler = PatchSampler(reader, batch_size=4, foreground_share=0.5, seed=4)
    seen = list(Prefetcher(reader, sampler).batches(3, 30))
    assert [iteration for iteration, _ in seen] == list(range(3, 30))
    for iteration, batch in seen:
        assert torch.equal(batch.images, reader.read(sampler.references(iteration)).images)


def test_an_epoch_draws_every_slice_once_on_average(prepared: list[PreparedCase]) -> None:
    reader = PatchReader(prepared, (16, 16))
    sampler = PatchSampler(reader, batch_size=8, foreground_share=0, seed=0)
    assert sampler.iterations_per_epoch == -(-reader.num_slices // 8)
