"""Pictures through the real slice views, checked on their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vtk
from ForgettableSegMRML.heatmaps import styleHeatmap
from ForgettableSegMRML.rendering import _key, renderSlices
from ForgettableSegMRML.segmentations import loadLabelMap
from ForgettableSegMRML.thumbnails import ThumbnailMaker
from ForgettableSegMRML.volumes import readVolume
from mrml_support import sitk
from vtk.util.numpy_support import vtk_to_numpy

from ForgettableSegLib.cases.task import SegmentClass
from ForgettableSegLib.errors import ForgettableSegError

SIZE = 240
GREEN = (0, 255, 0)


def _pixels(path: Path) -> np.ndarray:
    """Pixels of a PNG file, ``[row from the top, column, channel]``."""
    reader = vtk.vtkPNGReader()
    reader.SetFileName(str(path))
    reader.Update()
    image = reader.GetOutput()
    width, height, _depth = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1]


def _view(pixels: np.ndarray, number: int) -> np.ndarray:
    """One of the three views of a picture without a title."""
    left = number * (SIZE + 3)
    return pixels[:SIZE, left : left + SIZE]


def _where(pixels: np.ndarray, color: tuple[int, int, int], tolerance: int = 12) -> np.ndarray:
    return np.abs(pixels.astype(int) - color).max(axis=-1) <= tolerance


@pytest.fixture
def scene_of_a_cube(scene, make_file):
    """A dark volume of 40 x 50 x 30 mm with voxels of 1 x 1 x 3 mm; a bright cube lies left, anterior and inferior."""
    array = np.full((10, 50, 40), 20, np.float32)
    array[1:4, 5:15, 25:35] = 100
    image = readVolume(scene, make_file(array, "plain", "image.nrrd"), "image")
    image.SetSpacing(1, 1, 3)
    display = image.GetScalarVolumeDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 100)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segmentation")
    label = sitk.GetImageFromArray((array > 50).astype(np.uint8))
    label.SetSpacing((1, 1, 3))
    path = make_file(np.zeros((1, 1, 1)), "plain", "unused.nrrd").with_name("label.nrrd")
    sitk.WriteImage(label, str(path))
    loadLabelMap(node, path, [SegmentClass("Cube", 1, color=GREEN)], referenceVolume=image)
    return image, node


# In LPS with the origin at 0 the cube's middle is at (29.5, 9.5, 6) mm.
CUBE_RAS = (-29.5, -9.5, 6.0)


def test_the_three_views_show_the_patient_as_radiologists_read_them(scene_of_a_cube, tmp_path: Path) -> None:
    image, node = scene_of_a_cube
    renderSlices(image, node, None, tmp_path / "p.png", positionRas=CUBE_RAS, size=SIZE)
    pixels = _pixels(tmp_path / "p.png")
    assert pixels.shape[1] == 3 * SIZE + 2 * 3
    axial, coronal, sagittal = (np.argwhere(_where(_view(pixels, number), GREEN)) for number in range(3))
    for outline in (axial, coronal, sagittal):
        assert len(outline) > 40, "the outline is there"
    middle = SIZE / 2
    assert axial[:, 1].mean() > middle, "the patient's left is on the right"
    assert axial[:, 0].mean() < middle, "anterior is up"
    assert coronal[:, 1].mean() > middle
    assert coronal[:, 0].mean() > middle, "inferior is down"
    assert sagittal[:, 1].mean() < middle, "anterior is on the left"
    assert sagittal[:, 0].mean() > middle


def test_views_are_not_stretched(scene_of_a_cube, tmp_path: Path) -> None:
    image, node = scene_of_a_cube
    renderSlices(image, node, None, tmp_path / "p.png", positionRas=CUBE_RAS, size=SIZE)
    pixels = _pixels(tmp_path / "p.png")
    for number, (width_mm, height_mm) in enumerate(((10, 10), (10, 9), (10, 9))):
        rows, columns = np.nonzero(_where(_view(pixels, number), GREEN))
        assert np.ptp(columns) / np.ptp(rows) == pytest.approx(width_mm / height_mm, rel=0.12)


def test_zooming_in_centres_on_the_place(scene_of_a_cube, tmp_path: Path) -> None:
    image, node = scene_of_a_cube
    renderSlices(image, node, None, tmp_path / "p.png", positionRas=CUBE_RAS, fieldOfViewMm=20, size=SIZE)
    pixels = _pixels(tmp_path / "p.png")
    for number in range(3):
        rows, columns = np.nonzero(_where(_view(pixels, number), GREEN))
        assert np.ptp(columns) == pytest.approx(SIZE / 2, abs=8), "10 of 20 mm"
        assert (rows.min() + rows.max()) / 2 == pytest.approx(SIZE / 2, abs=10)
        assert (columns.min() + columns.max()) / 2 == pytest.approx(SIZE / 2, abs=10)


def test_the_heatmap_is_seen_only_from_its_threshold_on(scene, scene_of_a_cube, make_file, tmp_path: Path) -> None:
    image, _node = scene_of_a_cube
    values = np.zeros((10, 50, 40), np.float32)
    values[:, 30:40, 5:15], values[:, 30:40, 25:35] = 50, 99
    heatmap = readVolume(scene, make_file(values, "plain", "heat.nrrd"), "heat")
    heatmap.SetSpacing(1, 1, 3)
    styleHeatmap(heatmap, threshold=80)

    def colored() -> tuple[int, int]:
        """Coloured pixels on the patient's right and left in the axial view (letters and text are grey)."""
        renderSlices(image, None, heatmap, tmp_path / "p.png", positionRas=(-20, -35, 6), size=SIZE)
        axial = _view(_pixels(tmp_path / "p.png"), 0).astype(int)
        color = axial.max(axis=-1) - axial.min(axis=-1) > 40
        return int(color[:, : SIZE // 2].sum()), int(color[:, SIZE // 2 :].sum())

    right, left = colored()
    assert right == 0
    assert left > 500
    heatmap.GetScalarVolumeDisplayNode().SetThreshold(40, 100)
    assert colored()[0] > 500


def test_the_colour_bar_spans_the_window_of_the_heatmap(scene, scene_of_a_cube, make_file) -> None:
    heatmap = readVolume(scene, make_file(np.zeros((10, 50, 40), np.float32), "plain", "heat.nrrd"), "heat")
    styleHeatmap(heatmap, threshold=80)
    whole = _key(None, heatmap, "")
    assert whole.heatRange == (0, 100)
    assert [color == (0, 0, 0) for color in whole.heatColors] == [True] * 80 + [False] * 21
    heatmap.GetDisplayNode().SetWindowLevelMinMax(80, 100)
    shown = _key(None, heatmap, "")
    assert shown.heatRange == (80, 100)
    assert len(set(shown.heatColors)) > 80, "all colours of the map"
    assert shown.heatColors[-1] == whole.heatColors[-1]


def test_the_key_names_what_is_shown(scene_of_a_cube, tmp_path: Path) -> None:
    image, node = scene_of_a_cube
    renderSlices(image, node, None, tmp_path / "key.png", size=SIZE)
    renderSlices(image, None, None, tmp_path / "none.png", size=SIZE)
    renderSlices(image, node, None, tmp_path / "title.png", size=SIZE, title="A title")
    key, none, title = (_pixels(tmp_path / f"{name}.png") for name in ("key", "none", "title"))
    assert none.shape[0] == SIZE, "no key where there is nothing to explain"
    strip = key[SIZE:]
    assert _where(strip, GREEN).sum() > 100, "a square of the segment's colour"
    assert _where(strip, (255, 255, 255), 60).sum() > 20, "and its name"
    assert title.shape[0] > key.shape[0]
    assert _where(title[: title.shape[0] - key.shape[0]], (255, 255, 255), 60).sum() > 50


def test_many_names_take_several_rows(scene, scene_of_a_cube, make_file, tmp_path: Path) -> None:
    image, node = scene_of_a_cube
    classes = [SegmentClass(f"A structure with a rather long name {value}", value) for value in range(1, 13)]
    loadLabelMap(node, tmp_path / "label.nrrd", classes, referenceVolume=image)
    renderSlices(image, node, None, tmp_path / "p.png", size=SIZE)
    assert _pixels(tmp_path / "p.png").shape[0] > SIZE + 80


def test_the_scene_is_left_alone(scene, scene_of_a_cube, tmp_path: Path) -> None:
    image, node = scene_of_a_cube
    before = scene.GetNumberOfNodes()
    opacity = node.GetDisplayNode().GetOpacity2DFill()
    renderSlices(image, node, None, tmp_path / "p.png", size=SIZE)
    assert scene.GetNumberOfNodes() == before
    assert node.GetDisplayNode().GetOpacity2DFill() == opacity


def test_a_picture_that_cannot_be_written_is_told(scene_of_a_cube, tmp_path: Path) -> None:
    with pytest.raises(ForgettableSegError, match="could not be written"):
        renderSlices(scene_of_a_cube[0], None, None, tmp_path / "no" / "folder" / "p.png", size=64)


def test_thumbnails_show_the_slice_the_right_way_round_with_the_label(scene_of_a_cube, tmp_path: Path) -> None:
    array = np.full((10, 50, 40), 20, np.float32)
    array[1:4, 5:15, 25:35] = 100
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1, 1, 3))
    sitk.WriteImage(image, str(tmp_path / "cube.nrrd"))
    maker = ThumbnailMaker(size=100)
    expected = {0: (True, True), 1: (True, False), 2: (False, False)}  # right half, upper half
    for axis, (right, upper) in expected.items():
        (tmp_path / "t.png").write_bytes(
            maker.png(tmp_path / "cube.nrrd", CUBE_RAS, sliceAxis=axis, labelPath=tmp_path / "label.nrrd", color=GREEN)
        )
        pixels = _pixels(tmp_path / "t.png")
        assert pixels.shape == (100, 100, 3)
        outline = np.argwhere(_where(pixels, GREEN))
        bright = np.argwhere(_where(pixels, (255, 255, 255), 10))
        for points in (outline, bright):
            assert len(points) > 20
            assert (points[:, 1].mean() > 50) == right
            assert (points[:, 0].mean() < 50) == upper


def test_thumbnails_keep_few_volumes_and_crop_large_ones(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(4):
        sitk.WriteImage(sitk.GetImageFromArray(generator.normal(size=(4, 300, 300)).astype(np.float32)),
                        str(tmp_path / f"{number}.nrrd"))  # fmt: skip
    maker = ThumbnailMaker(size=50, keep=2, fieldOfViewMm=100)
    pictures = [maker.png(tmp_path / f"{number % 4}.nrrd", (-10, -10, 1)) for number in range(5)]
    assert pictures[0] == pictures[4], "read again, it is the same"
    assert len(maker._volumes) == 2
    with pytest.raises(ForgettableSegError, match="is missing"):
        maker.png(tmp_path / "none.nrrd", (0, 0, 0))
