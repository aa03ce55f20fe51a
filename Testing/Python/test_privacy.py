"""Nothing is sent anywhere, and names of cases and places stay in the user's own folders."""

from __future__ import annotations

import socket
import zipfile
from pathlib import Path
from typing import Any

import pytest
from job_inputs import SETTINGS, make_cases, run
from synthetic import TASK

from ForgettableSegLib.models.package import ModelPackage

PATIENT = "mueller1957"


class NetworkUsed(BaseException):
    """Not an Exception, so that no handler takes it for a network that is merely down."""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any use of the network ends the test."""

    def refuse(*arguments: object, **options: object) -> None:
        raise NetworkUsed(arguments[1:])

    for name in ("connect", "connect_ex", "sendto", "bind", "listen"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def cases_of(folder: Path) -> list[dict[str, Any]]:
    """Cases whose ids, groups and file names tell who the patient is."""
    named = []
    for number, case in enumerate(make_cases(folder)):
        name = f"{PATIENT}-{number}"
        files = [Path(case["images"][0]), Path(case["label"])]
        image, label = (path.rename(path.with_name(path.name.replace(case["id"], name))) for path in files)
        named.append({"id": name, "group": f"{PATIENT}-group-{number}", "images": [str(image)], "label": str(label)})
    return named


def arguments_of(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """Arguments of a training on such cases."""
    cases = cases_of(tmp_path / f"clinic-of-{PATIENT}")
    settings = {**SETTINGS, "iterations": 4, "store": "patch"}
    common = {"cases": cases, "task": TASK.to_dict(), "settings": settings, "name": "balls"}
    return {**common, "run": str(tmp_path / "run"), **changes}


def with_name(folder: Path, word: str) -> list[str]:
    """Files below a folder that hold a word, in their content or their name."""
    found = []
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if word in name or (file.is_file() and word.encode() in file.read_bytes()):
            found.append(name)
    return found


@pytest.mark.usefixtures("offline")
def test_train_export_and_segment_send_nothing_and_names_stay_with_the_run(tmp_path: Path, home: Path) -> None:
    arguments = arguments_of(tmp_path)
    done, events = run("train", **arguments)
    assert done.exit_code == 0, events[-1]
    exported, output = tmp_path / "exported", tmp_path / "out"
    run("models", action="install", path=str(tmp_path / "run" / "model"))
    run("models", action="export", name="balls", path=str(exported / "balls"))
    run("models", action="export", name="balls", path=str(exported / "balls.zip"))
    with zipfile.ZipFile(exported / "balls.zip") as archive:
        archive.extractall(exported / "opened")
    for folder in (exported, tmp_path / "run" / "model", home / ".forgettableseg" / "models"):
        assert list(folder.rglob("model.json"))
        assert with_name(folder, PATIENT) == []
        assert with_name(folder, str(tmp_path)) == []
    # The folder of the user's own run does name them: without that it could not be resumed.
    assert "config.json" in with_name(tmp_path / "run", PATIENT)
    done, events = run("segment", model="balls", cases=arguments["cases"][:1], output=str(output), device="cpu")
    assert done.exit_code == 0, events[-1]
    assert (output / f"{PATIENT}-0").is_dir()
    assert with_name(home, PATIENT) == []


def test_the_network_would_be_noticed(offline: None) -> None:
    with pytest.raises(NetworkUsed):
        socket.create_connection(("127.0.0.1", 9), timeout=1)


def test_logs_of_the_home_folder_name_a_case_only_where_its_job_failed_for_it(tmp_path: Path, home: Path) -> None:
    case = cases_of(tmp_path / "cases")[0]
    run("validate", cases=[case], task=TASK.to_dict())
    assert with_name(home, PATIENT) == []
    run("segment", model="no such model", cases=[case], output=str(tmp_path / "out"), device="cpu")
    logs = list((home / ".forgettableseg" / "logs").glob("*.txt"))
    assert len(logs) == 1
    assert PATIENT not in logs[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [f"{PATIENT}-3", f"{PATIENT.upper()}-GROUP-1"])
def test_a_model_cannot_be_called_like_a_patient(name: str, tmp_path: Path) -> None:
    done, events = run("train", **arguments_of(tmp_path, name=name))
    assert done.exit_code == 2
    assert events[-1]["code"] == "REQUEST_INVALID"
    assert name in events[-1]["text"]
    assert not (tmp_path / "run").exists()


def test_a_case_may_be_called_like_an_ordinary_word(tmp_path: Path) -> None:
    arguments = arguments_of(tmp_path)
    for case, word in zip(arguments["cases"], ("mr", "cpu", "onehot", "T1", "recommended", "label"), strict=True):
        case["id"] = case["group"] = word
    done, events = run("train", **arguments)
    assert done.exit_code == 0, events[-1]
    assert ModelPackage.read(tmp_path / "run" / "model").name == "balls"
