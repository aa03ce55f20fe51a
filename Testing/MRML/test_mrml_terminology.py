"""Structure names to SNOMED CT and colours."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ForgettableSegMRML.terminology import (
    colorsOfClasses,
    findTerminology,
    parseTerminology,
    terminologyFromDict,
    terminologyOfClass,
)
from mrml_support import slicer

from ForgettableSegLib.cases.task import SegmentClass
from ForgettableSegLib.resources import resources_dir

LEFT, RIGHT, ANTERIOR, POSTERIOR = "7771000", "24028007", "255549009", "255551008"
TABLE = json.loads((resources_dir() / "Terminology" / "structures.json").read_text(encoding="utf-8"))

# Name, SNOMED CT code of the type, of the modifier, of the region and of the region's modifier.
KNOWN = [
    ("liver", "10200004", None, None, None),
    ("Liver", "10200004", None, None, None),
    ("left_kidney", "64033007", LEFT, None, None),
    ("kidney_r", "64033007", RIGHT, None, None),
    ("KidneyLeft", "64033007", LEFT, None, None),
    ("a computerized tomography of a Right Adrenal Gland", "23451007", RIGHT, None, None),
    ("A magnetic resonance imaging of a spleen", "78961009", None, None, None),
    ("gall bladder", "28231008", None, None, None),
    ("hippocampus", "5366008", None, None, None),
    ("Anterior hippocampus", "5366008", ANTERIOR, None, None),
    ("hippocampus posterior", "5366008", POSTERIOR, None, None),
    ("left anterior hippocampus", "5366008", ANTERIOR, "5366008", LEFT),
    ("LV", "87878005", None, None, None),
    ("right ventricle", "53085002", None, None, None),
    ("grey matter", "389081007", None, None, None),
    ("liver tumour", "108369006", None, "10200004", None),
    ("cyst of the left kidney", "367643001", None, "64033007", LEFT),
    ("tumor", "108369006", None, None, None),
    ("vertebrae_L3", "36470004", None, None, None),
]


@pytest.mark.parametrize(("name", "type_", "modifier", "region", "side"), KNOWN)
def test_names_are_understood(name: str, type_: str, modifier: str, region: str, side: str) -> None:
    found = findTerminology(name)
    assert found is not None
    codes = [code and code[1] for code in (found.type, found.modifier, found.region, found.regionModifier)]
    assert codes == [type_, modifier, region, side]


@pytest.mark.parametrize(
    "name", ["", "Anterior", "thing", "left liver", "prostate or uterus", "tumor of nowhere", "the"]
)
def test_what_is_not_known_is_not_guessed(name: str) -> None:
    assert findTerminology(name) is None


def test_the_prompt_helps_where_the_name_does_not() -> None:
    found = findTerminology("Anterior", "A magnetic resonance imaging of a anterior hippocampus")
    assert (found.type[1], found.modifier[1]) == ("5366008", ANTERIOR)
    assert findTerminology("liver", "spleen").type[1] == "10200004", "the name goes first"


def test_every_row_of_the_table_is_found_by_all_its_names_and_round_trips() -> None:
    for row in TABLE["structures"]:
        for name in (row["name"], *row["synonyms"]):
            found = findTerminology(name)
            assert found is not None, name
            assert found.type == tuple(row["type"]), name
            again = parseTerminology(found.entry())
            assert (again.category, again.type, again.modifier) == (found.category, found.type, found.modifier)
            assert again.isSameStructure(found)


def test_one_code_has_one_meaning() -> None:
    meanings: dict[str, set[str]] = {}
    for row in TABLE["structures"]:
        meanings.setdefault(row["type"][1], set()).add(row["type"][2])
    assert {code: each for code, each in meanings.items() if len(each) > 1} == {}


def test_snomed_codes_carry_a_valid_check_digit() -> None:
    """SNOMED CT identifiers end in a Verhoeff check digit: a mistyped code does not pass."""
    codes = {code[1] for row in TABLE["structures"] for key in ("type", "category", "region", "modifier")
             if (code := row.get(key)) and code[0] == "SCT"}  # fmt: skip
    codes |= {code[1] for code in TABLE["modifiers"].values()}
    assert [code for code in sorted(codes) if not _verhoeff(code)] == []
    assert not _verhoeff("10200005"), "the check itself finds a wrong digit"


def test_slicer_reads_the_entry() -> None:
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    entry = slicer.vtkSlicerTerminologyEntry()
    assert logic.DeserializeTerminologyEntry(findTerminology("left kidney tumor").entry(), entry)
    assert entry.GetTypeObject().GetCodeMeaning() == "Neoplasm"
    assert entry.GetCategoryObject().GetCodeMeaning() == "Morphologically Altered Structure"
    assert entry.GetRegionObject().GetCodeValue() == "64033007"
    assert entry.GetRegionModifierObject().GetCodeMeaning() == "Left"


def test_a_class_with_codes_of_its_own_keeps_them() -> None:
    codes = {"category": ["SCT", "123037004", "Anatomical Structure"], "type": ["SCT", "1", "X"], "modifier": None}
    own = SegmentClass("liver", 1, terminology=codes)
    assert terminologyOfClass(own).type == ("SCT", "1", "X")
    assert terminologyOfClass(own).toDict() == codes
    assert terminologyFromDict({"type": ["SCT", "10200004", "Liver"]}).color == (221, 130, 101)


def test_what_is_unknown_is_tissue_under_its_own_name() -> None:
    unknown = terminologyOfClass(SegmentClass("Flubber", 3))
    assert unknown.type == ("SCT", "85756007", "Tissue")
    assert unknown.isUnspecific()
    assert not terminologyOfClass(SegmentClass("liver", 3)).isUnspecific()


@pytest.mark.parametrize("entry", ["", "nonsense", "~~~", "a~^^~^^~^^~~^^~^^"])
def test_empty_entries_say_nothing(entry: str) -> None:
    assert parseTerminology(entry) is None


def test_colors_are_the_recommended_ones_where_they_can_be_told_apart() -> None:
    classes = [SegmentClass(name, value) for value, name in enumerate(("liver", "spleen", "aorta"), start=1)]
    assert colorsOfClasses(classes)[:2] == [(221, 130, 101), (157, 108, 162)]
    assert colorsOfClasses([SegmentClass("liver", 1, color=(1, 2, 3))]) == [(1, 2, 3)]


@pytest.mark.parametrize("names", [["left kidney", "right kidney"], ["x", "y", "z"], [f"part {n}" for n in range(30)],
                                   [row["name"] for row in TABLE["structures"]][:25]])  # fmt: skip
def test_colors_differ_are_bright_enough_and_stable(names: list[str]) -> None:
    classes = [SegmentClass(name, value) for value, name in enumerate(names, start=1)]
    colors = np.array(colorsOfClasses(classes), float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 1e9 * np.eye(len(colors))
    assert distances.min() > (59 if len(names) < 12 else 20)
    assert colors.max(axis=1).min() > 100, "a dark outline is not seen on a dark image"
    assert colorsOfClasses(classes) == [tuple(color) for color in colors.astype(int)]


def _verhoeff(code: str) -> bool:
    """Verhoeff's check by the dihedral group of order 10."""

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
        return 5 + (a - b) % 5 if b < 5 else (a - b) % 5

    permutation = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for place, digit in enumerate(reversed(code)):
        value = int(digit)
        for _ in range(place % 8):
            value = permutation[value]
        check = times(check, value)
    return check == 0
