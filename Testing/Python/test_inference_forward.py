"""The one forward pass of validation and inference: whole slices, windows, padding, and running out of memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.network import forward
from ForgettableSegLib.network.forward import iterate_logits, predict_prepared


class Pointwise(nn.Module):
    """Logits -(x - k)^2 of the first channel: what any way of cutting must give, voxel by voxel."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.arange(classes, dtype=torch.float32))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shapes.append(tuple(image.shape))
        levels = self.levels.view(1, -1, *[1] * (image.ndim - 2))
        return -(image[:, :1] - levels).square()


class Limited(Pointwise):
    """Runs out of memory above a number of voxels a forward pass, as a graphics card does."""

    def __init__(self, limit: int, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.limit, self.error = limit, error

    def forward(self, image: Tensor) -> Tensor:
        if image[:, 0].numel() > self.limit:
            raise self.error()
        return super().forward(image)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 2, (2, 5, 20, 24)).astype(np.float32)


def expected(image: np.ndarray) -> np.ndarray:
    return -((image[:1] - np.arange(3, dtype=np.float32)[:, None, None, None]) ** 2)


@pytest.mark.parametrize(
    ("spatial_dims", "patch"), [(2, (8, 8)), (2, (32, 32)), (2, (32, 16)), (3, (4, 8, 8)), (3, (8, 32, 32))]
)
def test_the_network_never_sees_more_or_less_than_the_training_patch(
    image: np.ndarray, spatial_dims: int, patch: tuple[int, ...]
) -> None:
    network = Pointwise()
    logits = predict_prepared(network, image, spatial_dims=spatial_dims, patch_size=patch, device="cpu")
    assert logits.dtype == torch.float32
    np.testing.assert_allclose(logits.numpy(), expected(image), atol=1e-5)
    assert {shape[2:] for shape in network.shapes} == {patch}


def test_a_small_case_is_padded_as_training_pads_and_the_padding_is_cropped() -> None:
    class Sum(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return (image + image.sum(dim=(2, 3), keepdim=True)).repeat(1, 2, 1, 1)

    image = np.ones((1, 2, 3, 5), dtype=np.float32)
    logits = predict_prepared(Sum(), image, spatial_dims=2, patch_size=(8, 6), device="cpu")
    assert logits.shape == (2, 2, 3, 5)
    assert torch.equal(logits, torch.full_like(logits, 16.0)), "padding is zeros, the mean of a normalised image"


def test_a_slice_axis_far_longer_than_a_batch_is_covered_once_and_in_order(image: np.ndarray) -> None:
    network = Pointwise()
    slabs = list(iterate_logits(network, image, spatial_dims=2, patch_size=(20, 24), device="cpu", batch_size=2))
    assert [(where.start, where.stop) for where, _ in slabs] == [(0, 2), (2, 4), (4, 5)]
    assert [shape[0] for shape in network.shapes] == [2, 2, 1]


def test_volumes_are_handed_on_in_parts(image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(forward.BATCH_VOXELS, "cpu", 2 * 20 * 24)
    slabs = list(iterate_logits(Pointwise(), image, spatial_dims=3, patch_size=(8, 8, 8), device="cpu"))
    assert [(where.start, where.stop) for where, _ in slabs] == [(0, 2), (2, 4), (4, 5)]
    np.testing.assert_allclose(torch.cat([part for _, part in slabs], dim=1).numpy(), expected(image), atol=1e-6)


OUT_OF_MEMORY = {
    "cuda": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "mps": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    "cpu": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    "python": MemoryError,
}


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
@pytest.mark.parametrize("patch", [(8, 8), (20, 24)])
def test_out_of_memory_shrinks_the_batch(image: np.ndarray, kind: str, patch: tuple[int, int]) -> None:
    network, notes = Limited(math.prod(patch), OUT_OF_MEMORY[kind]), []
    parts = list(
        iterate_logits(
            network, image, spatial_dims=2, patch_size=patch, device="cpu", batch_size=4, on_note=notes.append
        )
    )
    np.testing.assert_allclose(torch.cat([part for _, part in parts], dim=1).numpy(), expected(image), atol=1e-5)
    assert ["batches of 2" in notes[0], "batches of 1" in notes[1]] == [True] * 2
    assert len(notes) == 2


def test_what_is_done_before_memory_runs_out_is_not_done_again(image: np.ndarray) -> None:
    class Later(Pointwise):
        def forward(self, image: Tensor) -> Tensor:
            if len(self.shapes) == 1 and image.shape[0] > 1:
                raise OUT_OF_MEMORY["cuda"]()
            return super().forward(image)

    network = Later()
    slabs = list(iterate_logits(network, image, spatial_dims=2, patch_size=(20, 24), device="cpu", batch_size=2))
    assert [where.start for where, _ in slabs] == [0, 2, 3, 4]


def test_not_even_one_window_is_one_plain_sentence(image: np.ndarray) -> None:
    network = Limited(10, OUT_OF_MEMORY["cpu"])
    with pytest.raises(ForgettableSegError, match="memory is too small") as caught:
        predict_prepared(network, image, spatial_dims=2, patch_size=(8, 8), device="cpu")
    assert caught.value.code == ErrorCode.OUT_OF_MEMORY
    assert caught.value.hint


def test_a_graphics_card_hands_over_to_the_processor() -> None:
    notes: list[str] = []
    plan = forward.ForwardPlan(torch.device("mps"), 1, is_whole=False)
    smaller = forward._smaller(plan, notes.append)
    assert smaller == forward.ForwardPlan(torch.device("cpu"), 1, is_whole=False)
    assert "on the processor" in notes[0]
    assert "mps" in notes[0]


def test_other_errors_are_not_taken_for_a_lack_of_memory(image: np.ndarray) -> None:
    network = Limited(10, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        predict_prepared(network, image, spatial_dims=2, patch_size=(8, 8), device="cpu")


@pytest.mark.parametrize(("spatial_dims", "patch"), [(2, (20, 24)), (2, (8, 8)), (3, (4, 8, 8))])
def test_steps_count_up_to_the_end_and_a_raise_stops(
    image: np.ndarray, spatial_dims: int, patch: tuple[int, ...]
) -> None:
    steps: list[tuple[int, int]] = []
    network = Pointwise()

    def run(on_step: Callable[[int, int], None]) -> None:
        for _ in iterate_logits(
            network, image, spatial_dims=spatial_dims, patch_size=patch, device="cpu", batch_size=2, on_step=on_step
        ):
            pass

    run(lambda done, of: steps.append((done, of)))
    assert len(steps) == len(network.shapes), "one call a forward pass"
    assert steps == sorted(steps)
    assert len({of for _, of in steps}) == 1
    assert all(0 <= done < of for done, of in steps)
    if spatial_dims == 3:
        assert steps[-1][1] == sum(shape[0] for shape in network.shapes), "windows are counted as MONAI cuts them"

    network.shapes.clear()

    def stop(done: int, of: int) -> None:
        if len(network.shapes) == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(stop)
    assert len(network.shapes) == 1
    assert network.training, "the network is given back as it was"


def test_the_network_can_be_trained_on_afterwards(image: np.ndarray) -> None:
    network = Pointwise().train()
    logits = predict_prepared(network, image, spatial_dims=2, patch_size=(8, 8), device="cpu")
    logits += 1  # an ordinary tensor, not one of inference mode
    assert network.training
    network(torch.from_numpy(image[:, 0][None])).sum().backward()
    assert network.levels.grad is not None


def test_read_only_memory_maps_are_taken_without_a_warning(image: np.ndarray, tmp_path) -> None:
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits = predict_prepared(Pointwise(), mapped, spatial_dims=2, patch_size=(8, 8), device="cpu")
    np.testing.assert_allclose(logits.numpy(), expected(image), atol=1e-6)
