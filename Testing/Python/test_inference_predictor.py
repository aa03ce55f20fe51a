"""Segmenting real files: the label map is known exactly, because the network decides by intensity alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.files import read_image, write_volume
from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.label_files import read_label_map
from ForgettableSegLib.cases.preprocessing import Preprocessing
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.inference.difficulty import Calibration, HistogramBuilder
from ForgettableSegLib.inference.predictor import Predictor
from ForgettableSegLib.inference.run import LoadedModel
from ForgettableSegLib.inference.scoring import Scorer
from ForgettableSegLib.mining.prototypes import Prototypes

VALUES = (0, 7, 300)
TASK = Task(
    name="toy",
    modality="CT",
    channels=("CT",),
    classes=(SegmentClass(name="soft", value=7), SegmentClass(name="hard", value=300)),
)
# Clipped to [-1000, 400] and divided by 100: air -10, soft 0.5, hard 3.
INTENSITIES = np.array([-1000.0, 50.0, 300.0], dtype=np.float32)
COS, SIN = np.cos(0.4), np.sin(0.4)
OBLIQUE = (COS, 0.0, SIN, 0.0, 1.0, 0.0, -SIN, 0.0, COS)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GRIDS = {
    "plain": Geometry((14, 12, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), AXIAL),
    "oblique": Geometry((14, 12, 6), (0.7, 0.7, 2.5), (-33.25, 12.125, 99.0), OBLIQUE),
    "flipped": Geometry((14, 12, 6), (1.0, 1.5, 2.0), (5.0, -6.0, 7.0), (-1, 0, 0, 0, 1, 0, 0, 0, -1)),
    "sagittal": Geometry((14, 12, 6), (0.9, 1.1, 3.0), (1.0, 2.0, 3.0), (0, 0, 1, 1, 0, 0, 0, -1, 0)),
    "single slice": Geometry((14, 12, 1), (0.5, 0.5, 5.0), (10.0, 20.0, 30.0), AXIAL),
}


class Threshold(nn.Module):
    """Logits that decide by intensity: class k where the first channel is closest to its level."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor([-10.0, 0.5, 3.0]))

    def forward(self, image: Tensor) -> Tensor:
        levels = self.levels.view(1, -1, *[1] * (image.ndim - 2))
        return -(image[:, :1] - levels).square()


def model(
    network: nn.Module | None = None,
    *,
    spatial_dims: int = 2,
    slice_axis: int = 0,
    spacing: tuple[float | None, ...] = (None, None, None),
    calibration: Calibration | None = None,
    task: Task = TASK,
) -> LoadedModel:
    levels = torch.tensor([-10.0, 0.5, 3.0])
    logits = -(levels.unsqueeze(1) - levels).square()  # rows: a voxel of each class
    prototypes = Prototypes.from_tensors(
        logits - logits.mean(dim=1, keepdim=True), torch.ones(3), torch.ones(3, dtype=torch.int64)
    )
    return LoadedModel(
        name="toy",
        task=task,
        preprocessing=Preprocessing(
            spatial_dims=spatial_dims,
            modality="CT",
            slice_axis=slice_axis,
            spacing=spacing,
            ct_statistics=((0.0, 100.0),) * len(task.channels),
        ),
        patch_size=(8,) * spatial_dims,
        network=network or Threshold(),
        scorer=Scorer(prototypes),
        calibration=calibration or Calibration({}),
        device=torch.device("cpu"),
    )


def truth(geometry: Geometry, seed: int = 0) -> np.ndarray:
    """Random class indices in blocks, different in every direction."""
    shape = geometry.shape
    coarse = np.random.default_rng(seed).choice(3, [max(1, -(-n // 3)) for n in shape], p=[0.6, 0.25, 0.15])
    return coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[: shape[0], : shape[1], : shape[2]]


@pytest.fixture(params=GRIDS)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return GRIDS[request.param]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_labels_lie_exactly_where_the_image_lies(
    geometry: Geometry, suffix: str, spatial_dims: int, tmp_path: Path
) -> None:
    classes = truth(geometry)
    path, output = tmp_path / f"image{suffix}", tmp_path / f"labels{suffix}"
    write_volume(path, INTENSITIES[classes], geometry)
    result = Predictor(model(spatial_dims=spatial_dims, slice_axis=1)).segment_case(Case("one", "one", (path,)))
    np.testing.assert_array_equal(result.labels, np.take(VALUES, classes))
    assert result.labels.dtype == np.uint16

    assert result.geometry == read_image(Case("one", "one", (path,)))[1]
    write_volume(output, result.labels, result.geometry)
    image, labels = sitk.ReadImage(str(path)), sitk.ReadImage(str(output))
    for get in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(labels, get)() == getattr(image, get)(), get
    assert result.volumes_ml["soft"] == pytest.approx((classes == 1).sum() * geometry.voxel_volume / 1000)
    for values in result.difficulty.values():
        assert values.shape == geometry.shape
        assert values.dtype == np.float32
        assert values.flags.c_contiguous


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_resampled_labels_agree_away_from_boundaries(spatial_dims: int, slice_axis: int) -> None:
    geometry = replace(GRIDS["oblique"], size=(60, 48, 30))
    classes = np.zeros(geometry.shape, dtype=np.int64)
    classes[5:25, 6:42, 8:28] = 1
    classes[5:25, 6:42, 34:54] = 2
    spacing = [1.0, 1.0, 1.0]
    if spatial_dims == 2:
        spacing[slice_axis] = None
    loaded = model(spatial_dims=spatial_dims, slice_axis=slice_axis, spacing=tuple(spacing))
    result = Predictor(loaded).segment_array(INTENSITIES[classes][None], geometry, probabilities=True)
    expected = np.take(VALUES, classes)
    assert (result.labels == expected).mean() > 0.95
    inner = np.zeros(classes.shape, dtype=bool)
    inner[8:22, 10:38, 12:24] = inner[8:22, 10:38, 38:50] = inner[:2] = True
    np.testing.assert_array_equal(result.labels[inner], expected[inner])
    np.testing.assert_array_equal(result.labels, np.take(VALUES, result.probabilities.argmax(0)))
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    # without histograms a percentile is the raw value times 100
    np.testing.assert_allclose(result.difficulty["confidence"], 100 * (1 - result.probabilities.max(0)), atol=1e-3)


def test_windows_and_whole_slices_agree() -> None:
    geometry = replace(GRIDS["plain"], size=(40, 30, 5))
    image = np.random.default_rng(1).uniform(-1000, 400, (1, *geometry.shape)).astype(np.float32)
    for spatial_dims in (2, 3):
        small = model(spatial_dims=spatial_dims)
        windows = Predictor(small).segment_array(image, geometry)
        whole = Predictor(replace(small, patch_size=(40,) * spatial_dims)).segment_array(image, geometry)
        assert (whole.labels == windows.labels).mean() > 0.9999
        for name, values in whole.difficulty.items():
            np.testing.assert_allclose(windows.difficulty[name], values, atol=0.2)  # a square root of rounding errors


def test_difficulty_is_the_closed_form_of_the_network() -> None:
    geometry = GRIDS["plain"]
    classes = truth(geometry)
    image = INTENSITIES[classes]
    image[2, 3, 4] = 175.0  # scaled 1.75: halfway between the two foreground classes
    result = Predictor(model()).segment_array(image[None], geometry)
    confidence, ratio = result.difficulty["confidence"], result.difficulty["prototype_ratio"]
    assert confidence[2, 3, 4] == pytest.approx(50, abs=1e-3)
    assert np.delete(confidence.ravel(), np.ravel_multi_index((2, 3, 4), geometry.shape)).max() < 0.25
    assert ratio[2, 3, 4] == pytest.approx(50, abs=1)
    certain = np.ones(geometry.shape, dtype=bool)
    certain[2, 3, 4] = False
    assert ratio[certain].max() < 1, "on its own prototype"
    hottest = result.review["slices"][0]
    assert hottest["slice"] == 2
    assert np.abs(np.array(hottest["position_lps"]) - (4, 3, 2)).max() <= 1, "the smoothed peak"


def test_maps_are_calibrated_and_far_background_stays_calm() -> None:
    builder = HistogramBuilder()
    builder.add("confidence", "voxel", np.linspace(0, 0.01, 1001))
    builder.add("prototype_ratio", "voxel", np.linspace(0, 0.5, 1001))
    geometry = replace(GRIDS["plain"], size=(30, 30, 2))
    image = np.full((1, *geometry.shape), -1000.0, dtype=np.float32)
    image[0, 0, 5:10, 5:10] = 50.0
    image[0, 0, 20:22, 20:22] = -600.0  # unusual background, certain: far from its prototype, and from the others
    image[0, 0, 25, 5] = -476.0  # nearly foreground
    loaded = model(calibration=Calibration.from_tensors(builder.tensors()))
    unusual = loaded.scorer.estimate(loaded.network(torch.full((1, 1, 1, 1), -6.0)).transpose(0, 1))
    assert loaded.calibration.percentile("prototype_ratio", "voxel", float(unusual[1])) > 30
    result = Predictor(loaded).segment_array(image, geometry)
    confidence, ratio = result.difficulty["confidence"], result.difficulty["prototype_ratio"]
    assert not result.labels[0, 20:, :].any()
    assert confidence[0, 25, 5] == pytest.approx(100, abs=1), "what was nearly seen shows in both channels"
    assert ratio[0, 25, 5] > 90
    assert ratio[0, 20, 20] <= confidence[0, 20, 20] < 1
    assert max(confidence[1].max(), ratio[1].max()) < 0.01, "confident background is dark"


@pytest.mark.parametrize("name", ["oblique", "sagittal"])
def test_a_region_is_segmented_and_the_rest_is_background(name: str) -> None:
    geometry = GRIDS[name]
    classes = np.maximum(truth(geometry), 1)
    predictor = Predictor(model(slice_axis=2))
    low, high = (3, 2, 1), (20, 9, 4)  # reaches over the border along x
    result = predictor.segment_array(INTENSITIES[classes][None], geometry, region=(low, high), probabilities=True)
    expected = np.zeros(geometry.shape, dtype=np.int64)
    box = (slice(1, 4), slice(2, 9), slice(3, 14))
    expected[box] = np.take(VALUES, classes)[box]
    np.testing.assert_array_equal(result.labels, expected)
    assert result.geometry == geometry
    outside = np.ones(geometry.shape, dtype=bool)
    outside[box] = False
    assert all((values[outside] == 0).all() for values in result.difficulty.values())
    np.testing.assert_array_equal(result.probabilities[:, outside], np.eye(3)[:1].T.repeat(outside.sum(), 1))
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-6)


def test_a_region_beside_the_image_is_refused() -> None:
    geometry = GRIDS["plain"]
    with pytest.raises(ForgettableSegError, match="outside of the image") as caught:
        Predictor(model()).segment_array(
            np.zeros((1, *geometry.shape), np.float32), geometry, region=((14, 0, 0), (20, 5, 5))
        )
    assert caught.value.code == ErrorCode.REQUEST_INVALID


def test_several_channels_reach_the_network_in_their_order(tmp_path: Path) -> None:
    class Second(Threshold):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image[:, 1:])

    geometry = GRIDS["oblique"]
    classes = truth(geometry)
    paths = (tmp_path / "a.nrrd", tmp_path / "b.nrrd")
    write_volume(paths[0], INTENSITIES[classes[::-1]], geometry)
    write_volume(paths[1], INTENSITIES[classes], geometry)
    two = replace(TASK, channels=("first", "second"))
    predictor = Predictor(model(Second(), task=two))
    result = predictor.segment_case(Case("one", "one", paths))
    np.testing.assert_array_equal(result.labels, np.take(VALUES, classes))
    with pytest.raises(ForgettableSegError, match="image channel") as caught:
        predictor.segment_case(Case("one", "one", paths[:1]))
    assert caught.value.code == ErrorCode.CASE_INVALID
    with pytest.raises(ForgettableSegError, match=r"needs 2: first, second"):
        predictor.segment_array(np.zeros((1, *geometry.shape), np.float32), geometry, case_id="one")


def test_running_out_of_memory_changes_the_way_not_the_result() -> None:
    class Small(Threshold):
        def forward(self, image: Tensor) -> Tensor:
            if image[:, 0].numel() > 64:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return super().forward(image)

    geometry = GRIDS["flipped"]
    classes = truth(geometry)
    result = Predictor(model(Small())).segment_array(INTENSITIES[classes][None], geometry)
    np.testing.assert_array_equal(result.labels, np.take(VALUES, classes))
    assert any("batches" in note for note in result.notes)
    assert Predictor(model()).segment_array(INTENSITIES[classes][None], geometry).notes == ()


def test_cancel_stops_before_the_next_forward_pass() -> None:
    class Counting(Threshold):
        calls = 0

        def forward(self, image: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(image)

    geometry = GRIDS["plain"]
    network = Counting()
    loaded = model(network)
    with pytest.raises(Cancelled):
        Predictor(loaded).segment_array(
            np.zeros((1, *geometry.shape), np.float32), geometry, cancelled=lambda: network.calls >= 1
        )
    assert network.calls == 1


def test_progress_runs_through_the_phases() -> None:
    geometry = GRIDS["plain"]
    told: list[tuple[str, int, int]] = []
    result = Predictor(model()).segment_array(
        np.zeros((1, *geometry.shape), np.float32), geometry, progress=lambda *step: told.append(step)
    )
    assert list(dict.fromkeys(phase for phase, _, _ in told)) == ["prepare", "predict", "restore", "review"]
    assert all(0 <= done <= of for _, done, of in told)
    assert set(result.seconds) == {"prepare", "predict", "restore", "review"}


def test_without_heatmap_nothing_of_it_is_computed() -> None:
    geometry = GRIDS["plain"]
    result = Predictor(model()).segment_array(np.zeros((1, *geometry.shape), np.float32), geometry, heatmap=False)
    assert (result.difficulty, result.review, result.probabilities) == ({}, None, None)


def test_a_model_without_prototypes_has_one_channel_and_no_audit() -> None:
    geometry = GRIDS["plain"]
    loaded = replace(model(), scorer=Scorer(Prototypes(3, 3)))
    image = INTENSITIES[truth(geometry)][None]
    result = Predictor(loaded).segment_array(image, geometry)
    assert list(result.difficulty) == ["confidence"]
    assert result.review["channels"] == ["confidence"]
    with pytest.raises(ForgettableSegError, match="without prototypes") as caught:
        Predictor(loaded).audit_array(image, geometry, np.zeros(geometry.shape, np.uint8))
    assert caught.value.code == ErrorCode.MODEL_INVALID


@pytest.mark.parametrize("name", ["oblique", "flipped", "sagittal"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_an_audit_lights_up_exactly_the_wrong_labels(name: str, spatial_dims: int) -> None:
    geometry = GRIDS[name]
    classes = truth(geometry)
    wrong = classes.copy()
    wrong[1, 3:6, 3:6] = (wrong[1, 3:6, 3:6] + 1) % 3
    predictor = Predictor(model(spatial_dims=spatial_dims, slice_axis=1))
    result = predictor.audit_array(INTENSITIES[classes][None], geometry, np.take(VALUES, wrong), case_id="one")
    assert list(result.scores) == ["T1", "T2", "T3", "T4", "score"]
    is_wrong = classes != wrong
    terms = [result.scores[name] for name in ("T1", "T2", "T3", "T4")]
    np.testing.assert_allclose(result.scores["score"], sum(terms), atol=1e-5)
    assert all(term.min() >= 0 and term.max() <= 1 for term in terms)
    assert result.scores["score"][is_wrong].min() > 2 > 0.5 > result.scores["score"][~is_wrong].max()
    assert result.geometry == geometry
    assert result.review["channels"] == list(result.scores)
    x, y, z = (
        np.linalg.solve(
            np.reshape(geometry.direction, (3, 3)) * geometry.spacing,
            np.array(result.review["slices"][0]["position_lps"]) - geometry.origin,
        )
        .round()
        .astype(int)
    )
    assert is_wrong[max(0, z - 1) : z + 2, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].any()


def test_an_audit_reads_files_and_refuses_values_of_other_tasks(tmp_path: Path) -> None:
    geometry = GRIDS["oblique"]
    classes = truth(geometry)
    image, label = tmp_path / "image.nrrd", tmp_path / "label.nrrd"
    write_volume(image, INTENSITIES[classes], geometry)
    write_volume(label, np.take(VALUES, classes).astype(np.uint16), geometry)
    case = Case("one", "one", (image,), label)
    result = Predictor(model()).audit_case(case)
    assert result.scores["T4"].max() < 0.01
    assert result.review["classes"][0]["voxels"] == (read_label_map(label)[0] == 7).sum()
    write_volume(label, (classes + 1).astype(np.uint8), geometry)
    with pytest.raises(ForgettableSegError, match="does not know"):
        Predictor(model()).audit_case(case)
