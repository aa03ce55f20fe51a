"""Prompts follow the paper's templates, and a class may have its own."""

from __future__ import annotations

import pytest

from ForgettableSegLib.cases.task import SegmentClass
from ForgettableSegLib.text.prompts import OBJECT, TEMPLATES, object_of, prompt_for, templates_for


def make_class(name: str, prompt: str = "") -> SegmentClass:
    return SegmentClass(name=name, value=1, prompt=prompt)


@pytest.mark.parametrize(
    ("modality", "expected"),
    [
        ("MR", "A magnetic resonance imaging of a liver"),
        ("CT", "A computerized tomography of a liver"),
        ("US", "A medical image of a liver"),
    ],
)
def test_default_prompt_is_the_modalitys(modality: str, expected: str) -> None:
    assert prompt_for(make_class("liver"), modality) == expected


@pytest.mark.parametrize("modality", [*TEMPLATES, "PET"])
def test_every_template_names_the_class(modality: str) -> None:
    templates = templates_for(modality)
    assert len(set(templates)) == 3
    for template in templates:
        assert "left kidney" in prompt_for(make_class("left_kidney"), modality, template)
        assert OBJECT not in prompt_for(make_class("left_kidney"), modality, template)


def test_a_class_may_have_its_own_words_or_its_own_template() -> None:
    words = make_class("WT", prompt="whole tumour of the brain")
    assert prompt_for(words, "MR") == "A magnetic resonance imaging of a whole tumour of the brain"
    assert prompt_for(words, "MR", TEMPLATES["MR"][2]) == "A photo of a whole tumour of the brain"
    template = make_class("cyst", prompt=f"A {OBJECT} in a kidney")
    assert prompt_for(template, "CT", TEMPLATES["CT"][2]) == "A cyst in a kidney"


@pytest.mark.parametrize(
    ("name", "article"),
    [
        ("anterior hippocampus", "an"),
        ("liver", "a"),
        ("Aorta", "an"),
        ("uterus", "a"),
        ("ulna", "an"),
        ("MS lesion", "an"),
        ("urinary bladder", "a"),
        ("CT contrast", "a"),
        ("oesophagus", "an"),
        ("Left kidney", "a"),
        ("eustachian tube", "a"),
    ],
)
def test_the_article_fits(name: str, article: str) -> None:
    for template in TEMPLATES["MR"]:
        prompt = prompt_for(make_class(name), "MR", template)
        assert f" {name}" in prompt
        assert object_of(prompt) == name
        if f"a {OBJECT}" in template:
            assert prompt.endswith(f" of {article} {name}")
    own = make_class(name, prompt=f"A {OBJECT} in a body")
    assert prompt_for(own, "MR") == f"{article.capitalize()} {name} in a body"


def test_braces_in_a_name_are_only_text() -> None:
    assert prompt_for(make_class("{0} lesion {x}"), "MR").endswith("a {0} lesion {x}")
