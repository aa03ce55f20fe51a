"""Label maps to segmentation nodes, to .seg.nrrd and back, and segmentations to label maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vtk
from ForgettableSegMRML.labelmaps import mapSegments, writeLabelMap
from ForgettableSegMRML.segmentations import (
    centerOfSegments,
    loadLabelMap,
    segmentIDOfName,
    segmentIDs,
    showClosedSurface,
    writeSegmentation,
)
from ForgettableSegMRML.terminology import colorsOfClasses, parseTerminology
from ForgettableSegMRML.volumes import readVolume
from mrml_support import GEOMETRIES, read_segmentation, same_geometry, sitk, slicer

from ForgettableSegLib.cases.task import SegmentClass
from ForgettableSegLib.errors import ForgettableSegError

KIDNEYS = (SegmentClass("Right kidney", 1), SegmentClass("Left kidney", 2))


@pytest.fixture
def segmentation(scene, make_file, boxes):
    """The two boxes as kidneys on the oblique grid, and the volume that they were found in."""
    return _segmentation(scene, make_file, boxes, "oblique")


def _segmentation(scene, make_file, labels, geometry, classes=KIDNEYS):
    image = readVolume(scene, make_file(labels.astype(np.float32), geometry, "image.nrrd"), "image")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segmentation")
    loadLabelMap(node, make_file(labels, geometry, "labels.nrrd"), classes, referenceVolume=image)
    return node, image


def _segments(node) -> list[slicer.vtkSegment]:
    return [node.GetSegmentation().GetSegment(each) for each in segmentIDs(node)]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_seg_nrrd_keeps_names_terminology_colours_voxels_and_geometry(
    scene, make_file, boxes, tmp_path: Path, geometry: str
) -> None:
    node, _image = _segmentation(scene, make_file, boxes, geometry)
    writeSegmentation(node, tmp_path / "case.seg.nrrd")
    scene.RemoveNode(node)
    again = read_segmentation(scene, tmp_path / "case.seg.nrrd")
    assert [segment.GetName() for segment in _segments(again)] == ["Right kidney", "Left kidney"]
    entries = [parseTerminology(segment.GetTerminology()) for segment in _segments(again)]
    assert [(entry.type[1], entry.modifier[2]) for entry in entries] == [("64033007", "Right"), ("64033007", "Left")]
    colors = [tuple(round(255 * channel) for channel in segment.GetColor()) for segment in _segments(again)]
    assert colors == colorsOfClasses(KIDNEYS)
    written = sitk.ReadImage(str(tmp_path / "case.seg.nrrd"))
    before = sitk.ReadImage(str(tmp_path / "image.nrrd"))
    oriented = [sitk.DICOMOrient(image, "LPS") for image in (written, before)]
    assert same_geometry(*oriented)
    assert np.array_equal(*(sitk.GetArrayFromImage(image) for image in oriented))


def test_the_centre_lies_within_the_first_segment_that_holds_anything(scene, make_file, boxes) -> None:
    node, image = _segmentation(scene, make_file, np.where(boxes == 1, 0, boxes), "oblique")
    to_ijk = vtk.vtkMatrix4x4()
    image.GetRASToIJKMatrix(to_ijk)
    i, j, k, _one = to_ijk.MultiplyPoint((*centerOfSegments(node), 1.0))
    assert boxes[round(k), round(j), round(i)] == 2
    assert np.allclose((k, j, i), [(3 + 7) / 2, (2 + 8) / 2, (8 + 12) / 2], atol=1.0)
    node, _image = _segmentation(scene, make_file, np.zeros_like(boxes), "plain")
    assert centerOfSegments(node) is None


def test_an_absent_class_becomes_an_empty_segment_that_survives(scene, make_file, boxes, tmp_path: Path) -> None:
    classes = (*KIDNEYS, SegmentClass("Spleen", 9))
    node, _image = _segmentation(scene, make_file, boxes, "plain", classes)
    writeSegmentation(node, tmp_path / "case.seg.nrrd")
    again = read_segmentation(scene, tmp_path / "case.seg.nrrd")
    assert [segment.GetName() for segment in _segments(again)][2] == "Spleen"
    counts = writeLabelMap(again, scene.GetFirstNodeByName("image"), mapSegments(again, classes).values,
                           tmp_path / "back.nrrd")  # fmt: skip
    assert counts == {1: int((boxes == 1).sum()), 2: int((boxes == 2).sum()), 9: 0}


def test_the_geometry_of_the_source_is_the_reference(segmentation) -> None:
    node, image = segmentation
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is image
    parameter = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    geometry = slicer.vtkOrientedImageData()
    text = node.GetSegmentation().GetConversionParameter(parameter)
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, geometry, False)
    matrix, expected = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    geometry.GetImageToWorldMatrix(matrix)
    image.GetIJKToRASMatrix(expected)
    assert np.allclose(matrix.GetData(), expected.GetData(), atol=1e-5)
    assert geometry.GetDimensions() == image.GetImageData().GetDimensions()


def test_loading_again_replaces_what_was_there(segmentation, make_file, boxes) -> None:
    node, image = segmentation
    turned = np.where(boxes == 1, 2, 0).astype(np.uint8)
    loadLabelMap(node, make_file(turned, "oblique", "new.nrrd"), KIDNEYS, referenceVolume=image)
    assert len(_segments(node)) == 2
    assert _voxels(node, "Right kidney") == 0
    assert _voxels(node, "Left kidney") == (boxes == 1).sum()


def test_surfaces_come_on_demand_and_go(segmentation) -> None:
    node, _image = segmentation
    assert not node.GetSegmentation().ContainsRepresentation("Closed surface")
    showClosedSurface(node)
    surface = vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation(segmentIDOfName(node, "Left kidney"), surface)
    assert surface.GetNumberOfCells() > 50
    showClosedSurface(node, False)
    assert not node.GetSegmentation().ContainsRepresentation("Closed surface")
    assert _voxels(node, "Left kidney") > 0


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_segmentation_gives_its_label_map_back(scene, make_file, boxes, tmp_path: Path, geometry: str) -> None:
    node, image = _segmentation(scene, make_file, boxes, geometry)
    counts = writeLabelMap(node, image, mapSegments(node, KIDNEYS).values, tmp_path / "back.nrrd")
    back, sent = sitk.ReadImage(str(tmp_path / "back.nrrd")), sitk.ReadImage(str(tmp_path / "labels.nrrd"))
    assert counts == {1: int((boxes == 1).sum()), 2: int((boxes == 2).sum())}
    oriented = [sitk.DICOMOrient(each, "LPS") for each in (back, sent)]
    assert same_geometry(*oriented)
    assert np.array_equal(*(sitk.GetArrayFromImage(each) for each in oriented))


def test_under_a_transform_image_and_labels_stay_together(scene, make_file, boxes, tmp_path: Path) -> None:
    node, image = _segmentation(scene, make_file, boxes, "RAS")
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    for row, values in enumerate(((0, -1, 0, 12), (1, 0, 0, -7), (0, 0, 1, 3))):
        for column, value in enumerate(values):
            matrix.SetElement(row, column, value)
    transform.SetMatrixTransformToParent(matrix)
    values = mapSegments(node, KIDNEYS).values
    for each in (node, image):
        each.SetAndObserveTransformNodeID(transform.GetID())
    moved_together = writeLabelMap(node, image, values, tmp_path / "moved.nrrd")
    assert np.array_equal(_array(tmp_path / "moved.nrrd"), boxes)
    loadLabelMap(node, tmp_path / "moved.nrrd", KIDNEYS, referenceVolume=image)
    assert node.GetTransformNodeID() == image.GetTransformNodeID()
    assert writeLabelMap(node, image, mapSegments(node, KIDNEYS).values, tmp_path / "again.nrrd") == moved_together
    node.SetAndObserveTransformNodeID(None)
    alone = writeLabelMap(node, image, mapSegments(node, KIDNEYS).values, tmp_path / "alone.nrrd")
    assert alone != moved_together, "a segmentation that was left behind no longer fits"


def test_segments_of_surfaces_only_are_rasterised(segmentation, scene, boxes, tmp_path: Path) -> None:
    node, image = segmentation
    node.GetSegmentation().SetConversionParameter("Smoothing factor", "0.0")
    node.CreateClosedSurfaceRepresentation()
    surfaces = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "surfaces")
    surfaces.GetSegmentation().DeepCopy(node.GetSegmentation())
    surfaces.GetSegmentation().SetSourceRepresentationName("Closed surface")
    surfaces.GetSegmentation().RemoveRepresentation("Binary labelmap")
    counts = writeLabelMap(surfaces, image, mapSegments(surfaces, KIDNEYS).values, tmp_path / "raster.nrrd")
    back = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / "raster.nrrd")), "LPS"))
    sent = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / "labels.nrrd")), "LPS"))
    for value in (1, 2):
        overlap = 2 * ((back == value) & (sent == value)).sum() / ((back == value).sum() + (sent == value).sum())
        assert overlap > 0.9, "only the corners are lost"
        assert counts[value] == (back == value).sum()
    assert not surfaces.GetSegmentation().ContainsRepresentation("Binary labelmap"), "the user's node is left alone"


def test_overlapping_classes_are_refused_by_name(segmentation, scene, tmp_path: Path) -> None:
    node, image = segmentation
    values = mapSegments(node, KIDNEYS).values
    copy = slicer.vtkSegment()
    copy.DeepCopy(node.GetSegmentation().GetSegment(segmentIDOfName(node, "Left kidney")))
    copy.SetName("Cyst")
    node.GetSegmentation().AddSegment(copy, "cyst")
    with pytest.raises(ForgettableSegError, match=r"'Left kidney' and 'Cyst' of 'segmentation' overlap in \d+ voxels"):
        writeLabelMap(node, image, {**values, "cyst": 3}, tmp_path / "labels.nrrd")
    counts = writeLabelMap(node, image, {**values, "cyst": 2}, tmp_path / "labels.nrrd")
    assert counts[2] > 0, "two segments of one class may overlap"


def test_label_values_above_255_are_kept(scene, make_file, boxes, tmp_path: Path) -> None:
    labels = np.where(boxes > 0, boxes.astype(np.uint16) * 1000, 0).astype(np.uint16)
    classes = (SegmentClass("a", 1000), SegmentClass("b", 2000))
    node, image = _segmentation(scene, make_file, labels, "plain", classes)
    counts = writeLabelMap(node, image, mapSegments(node, classes).values, tmp_path / "back.nrrd")
    assert np.array_equal(_array(tmp_path / "back.nrrd"), labels)
    assert counts == {1000: int((boxes == 1).sum()), 2000: int((boxes == 2).sum())}


def _rename(node, **names: str) -> None:
    for old, new in names.items():
        node.GetSegmentation().GetSegment(segmentIDOfName(node, old.replace("_", " "))).SetName(new)


def test_segments_find_their_class_by_terminology_then_by_name(segmentation) -> None:
    node, _image = segmentation
    _rename(node, Right_kidney="something", Left_kidney="else")
    ids = segmentIDs(node)
    assert mapSegments(node, KIDNEYS).values == dict(zip(ids, (1, 2), strict=True)), "by terminology"
    for segment in _segments(node):
        segment.SetTerminology("")
    mapping = mapSegments(node, KIDNEYS)
    assert set(mapping.values.values()) == {None}
    assert mapping.missing == ("Right kidney", "Left kidney")
    assert mapping.unused == ("something", "else")
    _rename(node, something="RIGHT  KIDNEY", **{"else": "kidney_l"})
    assert list(mapSegments(node, KIDNEYS).values.values()) == [1, 2], "by name, as people write it"


def test_a_terminology_that_two_classes_share_does_not_decide(segmentation) -> None:
    node, _image = segmentation
    classes = (SegmentClass("tumor core", 1), SegmentClass("enhancing tumor", 2))
    neoplasm = "c~SCT^49755003^Morphologically Altered Structure~SCT^108369006^Neoplasm~^^~~^^~^^"
    for segment in _segments(node):
        segment.SetTerminology(neoplasm)
    _rename(node, Right_kidney="Enhancing tumor", Left_kidney="Tumor core")
    assert list(mapSegments(node, classes).values.values()) == [2, 1]
    tissue = "c~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~~^^~^^"
    for segment in _segments(node):
        segment.SetTerminology(tissue)
    assert list(mapSegments(node, classes).values.values()) == [2, 1], "tissue says nothing"


def test_real_label_maps_round_trip(scene, shared_data: Path, tmp_path: Path) -> None:
    hippocampus = (
        SegmentClass("Anterior", 1, "anterior hippocampus"),
        SegmentClass("Posterior", 2, "posterior hippocampus"),
    )
    names = ("liver", "right kidney", "left kidney", "spleen")
    abdomen = tuple(SegmentClass(name, value) for value, name in enumerate(names, start=1))
    for folder, classes, number in (("Hippocampus", hippocampus, 3), ("AbdomenMR", abdomen, 2)):
        for label in sorted((shared_data / folder / "labelsTr").glob("*.nii.gz"))[:number]:
            image = next((shared_data / folder / "imagesTr").glob(label.name.split(".")[0] + "*"))
            volume = readVolume(scene, image, "volume")
            node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "node")
            loadLabelMap(node, label, classes, referenceVolume=volume)
            writeSegmentation(node, tmp_path / "case.seg.nrrd")
            again = read_segmentation(scene, tmp_path / "case.seg.nrrd")
            writeLabelMap(again, volume, mapSegments(again, classes).values, tmp_path / "back.nrrd")
            back, sent = (
                sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS") for path in (tmp_path / "back.nrrd", label)
            )
            assert same_geometry(back, sent, 1e-4), label.name
            assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(sent)), label.name
            for each in (volume, node, again):
                scene.RemoveNode(each)


def _voxels(node, name: str) -> int:
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segmentIDOfName(node, name), image)
    scalars = image.GetPointData().GetScalars()
    return 0 if scalars is None else int(np.count_nonzero(vtk.util.numpy_support.vtk_to_numpy(scalars)))


def _array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
