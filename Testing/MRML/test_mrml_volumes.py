"""Volume nodes to files and back: geometry, transforms, components, regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vtk
from ForgettableSegMRML.volumes import indexBoxOfROI, placeOnGrid, readVolume, whyNotUsable, writeVolume
from hypothesis import given, settings
from hypothesis import strategies as st
from mrml_support import GEOMETRIES, same_geometry, sitk, slicer
from vtk.util.numpy_support import numpy_to_vtk

from ForgettableSegLib.errors import ForgettableSegError

DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "float32", "float64")


def add_transform(scene: slicer.vtkMRMLScene, matrix: np.ndarray, *nodes: slicer.vtkMRMLTransformableNode):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    values = vtk.vtkMatrix4x4()
    values.DeepCopy(matrix.ravel())
    node.SetMatrixTransformToParent(values)
    for each in nodes:
        each.SetAndObserveTransformNodeID(node.GetID())
    return node


def rigid() -> np.ndarray:
    angle = np.deg2rad(30)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = [10, -20, 30]
    return matrix


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_voxels_and_geometry_survive(scene, make_file, tmp_path: Path, geometry: str) -> None:
    array = np.random.default_rng(0).normal(size=(5, 7, 6)).astype(np.float32)
    node = readVolume(scene, make_file(array, geometry), "volume")
    writeVolume(node, tmp_path / "out.nrrd")
    before, after = sitk.ReadImage(str(tmp_path / "volume.nrrd")), sitk.ReadImage(str(tmp_path / "out.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(after), array)
    assert same_geometry(before, after)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pixel_type_is_written(scene, make_file, tmp_path: Path, dtype: str) -> None:
    array = np.arange(60).reshape(3, 4, 5).astype(dtype)
    writeVolume(readVolume(scene, make_file(array), "volume"), tmp_path / "out.nrrd")
    after = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out.nrrd")))
    assert after.dtype == array.dtype
    assert np.array_equal(after, array)


def test_one_slice_and_several_components(scene, make_file, tmp_path: Path) -> None:
    single = readVolume(scene, make_file(np.ones((1, 4, 5), np.int16)), "slice")
    writeVolume(single, tmp_path / "slice.nrrd")
    assert sitk.ReadImage(str(tmp_path / "slice.nrrd")).GetSize() == (5, 4, 1)
    channels = np.random.default_rng(1).normal(size=(3, 4, 5, 2)).astype(np.float32)
    image = sitk.GetImageFromArray(channels, isVector=True)
    sitk.WriteImage(image, str(tmp_path / "two.nrrd"))
    node = readVolume(scene, tmp_path / "two.nrrd", "two")
    assert node.IsA("vtkMRMLVectorVolumeNode")
    writeVolume(node, tmp_path / "out.nrrd")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out.nrrd"))), channels)


def test_a_linear_transform_is_hardened_in_a_copy(scene, make_file, tmp_path: Path) -> None:
    array = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    node = readVolume(scene, make_file(array, "oblique"), "volume")
    add_transform(scene, rigid(), node)
    nodes_before, matrix_before = scene.GetNumberOfNodes(), _ijk_to_ras(node)
    writeVolume(node, tmp_path / "out.nrrd")
    written = sitk.ReadImage(str(tmp_path / "out.nrrd"))
    lps = np.array(written.TransformIndexToPhysicalPoint((3, 2, 1)))
    ras = rigid() @ matrix_before @ [3, 2, 1, 1]
    assert np.allclose(lps * [-1, -1, 1], ras[:3], atol=1e-4)
    assert np.array_equal(sitk.GetArrayFromImage(written), array)
    assert scene.GetNumberOfNodes() == nodes_before
    assert np.array_equal(_ijk_to_ras(node), matrix_before)
    assert node.GetParentTransformNode() is not None


def test_what_cannot_be_written_is_refused_in_a_sentence(scene, make_file, tmp_path: Path) -> None:
    node = readVolume(scene, make_file(np.zeros((3, 3, 3), np.uint8)), "head")
    assert whyNotUsable(node) == ""
    shear = np.eye(4)
    shear[0, 1] = 0.2
    transform = add_transform(scene, shear, node)
    assert "right angles" in whyNotUsable(node)
    with pytest.raises(ForgettableSegError, match="'head'"):
        writeVolume(node, tmp_path / "out.nrrd")
    transform.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    assert "non-linear" in whyNotUsable(node)
    assert "no image" in whyNotUsable(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
    assert whyNotUsable(None) == "Choose an input volume."
    node.SetAndObserveTransformNodeID(None)
    with pytest.raises(ForgettableSegError, match="could not be written"):
        writeVolume(node, tmp_path / "volume.nrrd" / "out.nrrd")


def test_files_that_are_missing_or_broken_leave_no_node_behind(scene, tmp_path: Path) -> None:
    before = scene.GetNumberOfNodes()
    with pytest.raises(ForgettableSegError, match="is missing"):
        readVolume(scene, tmp_path / "none.nrrd", "volume")
    (tmp_path / "broken.nrrd").write_bytes(b"NRRD0004\ntype: float\n")
    with pytest.raises(ForgettableSegError, match="cannot be read"):
        readVolume(scene, tmp_path / "broken.nrrd", "volume")
    assert scene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == 0
    assert scene.GetNumberOfNodes() == before


def test_a_read_volume_is_not_tied_to_its_temporary_file(scene, make_file) -> None:
    node = readVolume(scene, make_file(np.zeros((3, 3, 3), np.float32)), "volume")
    assert node.GetStorageNode() is None


def test_a_result_follows_the_volume_that_it_came_from(scene, make_file, tmp_path: Path) -> None:
    source = readVolume(scene, make_file(np.zeros((4, 5, 6), np.float32), "oblique"), "source")
    add_transform(scene, rigid(), source)
    writeVolume(source, tmp_path / "sent.nrrd")
    result = readVolume(scene, tmp_path / "sent.nrrd", "result")
    assert not np.array_equal(_ijk_to_ras(result), _ijk_to_ras(source))
    placeOnGrid(result, source)
    assert np.array_equal(_ijk_to_ras(result), _ijk_to_ras(source))
    assert result.GetTransformNodeID() == source.GetTransformNodeID()
    other = readVolume(scene, make_file(np.zeros((2, 2, 2), np.float32), "plain", "other.nrrd"), "other")
    before = _ijk_to_ras(other)
    placeOnGrid(other, source)
    assert np.array_equal(_ijk_to_ras(other), before), "another grid is left as it is"


def test_the_result_of_a_left_handed_volume_lies_where_the_volume_lies(scene, tmp_path: Path) -> None:
    array = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    source = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "mirrored")
    image = vtk.vtkImageData()
    image.SetDimensions(6, 5, 4)
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    source.SetAndObserveImageData(image)
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(2, 2, -2.0)
    source.SetIJKToRASMatrix(matrix)
    writeVolume(source, tmp_path / "sent.nrrd")
    written = sitk.ReadImage(str(tmp_path / "sent.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(written), array), "the worker sees the node's own voxel order"
    result = readVolume(scene, tmp_path / "sent.nrrd", "result")
    placeOnGrid(result, source)
    spots = [np.linalg.inv(_ijk_to_ras(node)) @ [2, 3, -4, 1] for node in (source, result)]
    values = [node.GetImageData().GetScalarComponentAsDouble(*np.rint(spot[:3]).astype(int), 0)
              for node, spot in zip((source, result), spots, strict=True)]  # fmt: skip
    assert values[0] == values[1] == array[2, 3, 2]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_region_that_covers_whole_voxels_gives_exactly_these(scene, make_file, geometry: str) -> None:
    node = readVolume(scene, make_file(np.zeros((20, 20, 20), np.uint8), geometry), "volume")
    roi = _roi_around(scene, node, (3, 4, 5), (8, 10, 6))
    assert indexBoxOfROI(roi, node) == ((3, 4, 5), (8, 10, 6))
    add_transform(scene, rigid(), node, roi)
    assert indexBoxOfROI(roi, node) == ((3, 4, 5), (8, 10, 6)), "both moved together"


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(-10, 30)] * 3), st.tuples(*[st.integers(1, 25)] * 3))
def test_a_region_is_cut_off_at_the_borders_or_refused(low: tuple, size: tuple) -> None:
    scene = slicer.vtkMRMLScene()
    slicer.vtkSlicerMarkupsLogic().SetMRMLScene(scene)
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "volume")
    image = vtk.vtkImageData()
    image.SetDimensions(20, 20, 20)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    node.SetAndObserveImageData(image)
    high = tuple(a + b for a, b in zip(low, size, strict=True))
    roi = _roi_around(scene, node, low, high)
    inside = [(max(0, a), min(20, b)) for a, b in zip(low, high, strict=True)]
    if any(a >= b for a, b in inside):
        with pytest.raises(ForgettableSegError, match="outside the volume"):
            indexBoxOfROI(roi, node)
    else:
        assert indexBoxOfROI(roi, node) == tuple(zip(*inside, strict=True))


def test_real_volumes_survive(scene, shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "Hippocampus" / "imagesTr").glob("*.nii.gz"))[:3]
    files += sorted((shared_data / "AbdomenMR" / "imagesTr").glob("*.nii.gz"))[:1]
    files += sorted((shared_data / "Examples").glob("*.nii.gz"))
    assert len(files) > 5
    for file in files:
        node = readVolume(scene, file, file.name)
        assert whyNotUsable(node) == "", file.name
        writeVolume(node, tmp_path / "out.nrrd")
        images = [sitk.ReadImage(str(path)) for path in (file, tmp_path / "out.nrrd")]
        # Slicer turns the slices of left-handed files round; in one orientation both are the same again.
        before, after = (sitk.DICOMOrient(image, "LPS") for image in images)
        assert np.array_equal(sitk.GetArrayFromImage(before), sitk.GetArrayFromImage(after)), file.name
        assert same_geometry(before, after, 1e-4), file.name
        scene.RemoveNode(node)


def _ijk_to_ras(node: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _roi_around(scene, node, low, high) -> slicer.vtkMRMLMarkupsROINode:
    """A region around voxels low to high (excluded), turned as the volume is."""
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "region")
    to_ras = _ijk_to_ras(node)
    lengths = np.linalg.norm(to_ras[:3, :3], axis=0)
    corner, opposite = np.array(low) - 0.5, np.array(high) - 0.5
    axes = to_ras[:3, :3] / lengths
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1  # a region is right-handed; as a box it is the same
    matrix = np.eye(4)
    matrix[:3, :3] = axes
    matrix[:3, 3] = (to_ras @ [*(corner + opposite) / 2, 1])[:3]
    values = vtk.vtkMatrix4x4()
    values.DeepCopy(matrix.ravel())
    roi.SetAndObserveObjectToNodeMatrix(values)
    roi.SetSize(*((opposite - corner) * lengths))
    return roi
