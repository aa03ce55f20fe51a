"""Whatever stands in a file or a line that others wrote, a reader ends soon, with a result or a sentence."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import TASK, make_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from small_models import make_card, put_weights, zip_of

from ForgettableSegLib.cases.case_list import read_case_list
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.requests import REQUESTS, Request, make_request
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.training.settings import TrainingSettings
from ForgettableSegLib.worker.protocol import EVENT_FIELDS, PREFIX, encode_event, parse_line, parse_request, request_id

SLOW_FACTOR = 40
DEADLINE_MS = 20_000
WORDS = (
    *("id", "image", "images", "label", "labels", "group", "training", "validation", "test", "dataset", "file_ending"),
    *("channel_names", "name", "value", "modality", "channels", "classes", "color", "prompt", "0", "1", ".nii.gz", "a"),
    *("..", "a/b", "a.nii.gz", "nul", "\0", "x" * 300),
)

_executions: dict[str, int] = {}

text = st.sampled_from(WORDS) | st.text(max_size=12)
numbers = st.integers(-5, 300) | st.sampled_from([10**30, -(10**400), 2**63]) | st.floats()
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(params=[1, pytest.param(SLOW_FACTOR, marks=pytest.mark.slow)], ids=["quick", "long"])
def factor(request: pytest.FixtureRequest) -> int:
    """How many times as many examples as in the default run."""
    return request.param


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good package."""
    return make_model(tmp_path_factory.mktemp("models"))


def fuzz(check: Callable[[Any], object], examples: SearchStrategy, number: int, *codes: ErrorCode) -> None:
    """Call `check` with examples; it may raise one of our errors with one of these codes (any, if none), no other.

    The default run tries the same examples every time, so that it fails for whoever broke something.
    """
    name = check.__qualname__.split(".")[0]

    @settings(
        max_examples=number,
        deadline=DEADLINE_MS,
        derandomize=number < 1000,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(examples)
    def run(example: Any) -> None:
        _executions[name] = _executions.get(name, 0) + 1
        error = refusal(check, example)
        if error is not None:
            assert not codes or error.code in codes
            assert "\n" not in error.message.strip()
            assert error.message.strip()

    run()


def refusal(check: Callable[[Any], object], example: Any) -> ForgettableSegError | None:
    """Our error for an example, if there is one; any other is a failure."""
    try:
        check(example)
    except ForgettableSegError as error:
        return error
    return None


# --- model packages ---


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with a few bytes overwritten, a part cut out, or a part repeated."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(changed) - 1))
        length = draw(st.integers(0, 40))
        kind = draw(st.sampled_from(["overwrite", "cut", "repeat"]))
        if kind == "overwrite":
            changed[at : at + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "cut":
            del changed[at : at + length]
        else:
            changed[at:at] = changed[at : at + length]
    return bytes(changed)


def test_changed_archives_are_read_or_refused(model: Path, tmp_path: Path, factor: int) -> None:
    content = zip_of(model).read_bytes()
    path = tmp_path / "model.zip"

    def check(example: bytes) -> None:
        path.write_bytes(example)
        ModelPackage.read(path)

    examples = changed_bytes(content) | changed_bytes(content[-400:]) | st.binary(max_size=300)
    fuzz(check, examples, 120 * factor, ErrorCode.MODEL_INVALID)


@st.composite
def changed_cards(draw: st.DrawFn) -> dict[str, Any]:
    """A good card, some of whose values are others."""
    card = json.loads(json.dumps(make_card()))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = card
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys) if keys else text)
            if not isinstance(place[key], (dict, list)) or not place[key] or draw(st.booleans()):
                break
            place = place[key]
        place[key] = draw(json_values)
    return card


def test_changed_cards_are_read_or_refused(model: Path, tmp_path: Path, factor: int) -> None:
    stated = json.loads((model / "model.json").read_text(encoding="utf-8"))["files"]
    path = tmp_path / "model.zip"

    def check(example: dict[str, Any]) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.json", json.dumps({**example, "files": stated}))
            for name in stated:
                archive.write(model / name, name)
        ModelPackage.read(path)

    fuzz(check, changed_cards(), 120 * factor, ErrorCode.MODEL_INVALID)


def test_any_header_of_safetensors_is_read_or_refused(model: Path, tmp_path: Path, factor: int) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    names = st.sampled_from(["network.output.bias", "prototypes.mean", "calibration.x", "__metadata__", "a"])
    sizes = st.integers(0, 40) | st.sampled_from([2**31, 2**63, 2**64 - 1, 10**30, -1])
    tensor = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F16", "F32", "I64", "BOOL", "F8_E4M3", "F4", "C64", "OBJECT"]) | text,
            "shape": st.lists(sizes, max_size=5),
            "data_offsets": st.lists(sizes, min_size=2, max_size=2),
        }
    )
    headers = st.dictionaries(names, tensor | json_values, max_size=4)
    examples = st.tuples(headers, st.integers(0, 64), st.sampled_from([0, 0, 0, 1, -1, 2**40]))

    def check(example: tuple[dict[str, Any], int, int]) -> None:
        header, data, off = example
        content = json.dumps(header).encode()
        put_weights(folder, max(0, len(content) + off).to_bytes(8, "little") + content + bytes(data))
        ModelPackage.read(folder)

    fuzz(check, examples, 120 * factor, ErrorCode.MODEL_INVALID)


# --- case lists and tasks ---

LIST_CODES = (ErrorCode.CASE_LIST_INVALID, ErrorCode.FILE_MISSING, ErrorCode.TASK_INVALID)


def test_any_json_is_a_case_list_or_refused(tmp_path: Path, factor: int) -> None:
    path = tmp_path / "list.json"

    def check(example: Any) -> None:
        path.write_bytes(example if isinstance(example, bytes) else json.dumps(example).encode())
        assert read_case_list(path).cases

    fuzz(check, json_values | st.binary(max_size=60), 200 * factor, *LIST_CODES)


def test_any_table_is_a_case_list_or_refused(tmp_path: Path, factor: int) -> None:
    path = tmp_path / "list.csv"
    header = st.sampled_from(
        ["id,image,label", "image", "image_0;image_1;id", "ID\timage\treference", ",", "image,image"]
    )
    rows = st.lists(st.lists(text | st.sampled_from(['"', "'", "a|b", "|"]), max_size=5).map(",".join), max_size=5)
    examples = st.tuples(header | text, rows).map(
        lambda parts: "\n".join([parts[0], *parts[1]]).encode("utf-8", "ignore")
    )

    def check(example: bytes) -> None:
        path.write_bytes(example)
        assert read_case_list(path).cases

    fuzz(check, examples | st.binary(max_size=60), 200 * factor, *LIST_CODES)


def test_any_folder_is_a_case_list_or_refused(tmp_path_factory: pytest.TempPathFactory, factor: int) -> None:
    letters = st.characters(codec="utf-8", exclude_characters="/\0")
    stems = st.sampled_from(["a", "a_0000", "a_0001", "b_0000", "a_label", "dataset", ".", ".a", " a", "_0000"])
    endings = st.sampled_from([".nii.gz", ".nrrd", ".seg.nrrd", ".dcm", ".json", ".nii", "", ".mhd", "."])
    names = st.tuples(stems | st.text(letters, min_size=1, max_size=8), endings).map("".join)
    folders = st.sampled_from(["", "images", "labels", "imagesTr", "labelsTr", "series"])
    files = st.lists(st.tuples(folders, names, st.binary(max_size=8)), max_size=8)

    def check(example: list[tuple[str, str, bytes]]) -> None:
        root = tmp_path_factory.mktemp("folder")
        for folder, name, content in example:
            (root / folder).mkdir(exist_ok=True)
            with contextlib.suppress(OSError):  # a folder has that name
                (root / folder / name).write_bytes(content)
        assert read_case_list(root).cases

    fuzz(check, files, 40 * factor, *LIST_CODES)


def test_any_task_is_one_or_refused(factor: int) -> None:
    def check(example: Any) -> None:
        assert Task.from_dict(Task.from_dict(example).to_dict()).to_dict()

    changed = st.dictionaries(st.sampled_from([*TASK, "other"]), json_values, max_size=2)
    classes = st.lists(st.dictionaries(st.sampled_from(["name", "value", "color", "prompt"]), json_values), max_size=3)
    examples = (
        json_values | changed.map(lambda part: {**TASK, **part}) | classes.map(lambda part: {**TASK, "classes": part})
    )
    fuzz(check, examples, 200 * factor, ErrorCode.TASK_INVALID)


def test_any_settings_are_some_or_refused(factor: int) -> None:
    names = list(TrainingSettings().to_dict())

    def check(example: dict[str, Any]) -> None:
        assert TrainingSettings.from_dict(TrainingSettings.from_dict(example).to_dict())

    fuzz(
        check, st.dictionaries(st.sampled_from(names), json_values, max_size=3), 300 * factor, ErrorCode.SETTING_INVALID
    )


# --- lines between client and worker ---


@st.composite
def request_lines(draw: st.DrawFn) -> bytes:
    """A line that looks more or less like a request."""
    job = draw(st.sampled_from([*REQUESTS, "dance"]))
    names = list(REQUESTS[job].__dataclass_fields__) if job in REQUESTS else ["a"]
    arguments = draw(st.dictionaries(st.sampled_from(names) | text, json_values, max_size=5) | json_values)
    content = {"request": draw(st.sampled_from(["job", "job", "job", "cancel", "pause", "fly"])), "job": job}
    content |= {"id": draw(json_values), "arguments": arguments} if draw(st.booleans()) else {"arguments": arguments}
    return json.dumps(content).encode()


def test_any_line_is_a_request_or_refused(factor: int) -> None:
    def check(example: bytes) -> None:
        assert isinstance(request_id(example), str)
        request = parse_request(example)
        if request.request == "job":
            assert isinstance(make_request(request.job, request.arguments), Request)

    examples = request_lines() | st.binary(max_size=80) | json_values.map(lambda value: json.dumps(value).encode())
    fuzz(check, examples, 400 * factor, ErrorCode.REQUEST_INVALID)


def test_any_line_is_an_event_or_log_text(factor: int) -> None:
    def check(example: bytes) -> None:
        event = parse_line(example)
        assert event is None or event["event"] in EVENT_FIELDS
        for line in io.BytesIO(example):
            assert parse_line(line.decode("utf-8", "replace")) == parse_line(line)

    kinds = st.sampled_from([*EVENT_FIELDS, "other"]) | json_values
    events = st.tuples(kinds, json_values).map(lambda parts: json.dumps({"event": parts[0], "text": parts[1]}).encode())
    lines = st.tuples(st.sampled_from([PREFIX.encode(), b"@fs", b""]), events | st.binary(max_size=60)).map(b"".join)
    fuzz(check, lines, 400 * factor)


def test_whatever_a_job_tells_comes_through_a_line(factor: int) -> None:
    def check(example: Any) -> None:
        line = encode_event({"event": "log", "text": example})
        assert line.count("\n") == 1
        assert line.isascii()
        assert parse_line(line)["event"] == "log"

    fuzz(check, json_values, 200 * factor)


def test_the_number_of_executions_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nfuzz executions: {sum(_executions.values())}")
    assert all(number >= 40 for number in _executions.values()), _executions
