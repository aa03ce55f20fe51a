"""Every option says what it does and what holds without it, and a model is not removed unasked."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pytest
from small_models import make_package

from ForgettableSegLib import cli
from ForgettableSegLib.command_line import build_parser
from ForgettableSegLib.errors import ForgettableSegError
from ForgettableSegLib.jobs.requests import REQUESTS
from ForgettableSegLib.models.registry import find_model, install
from ForgettableSegLib.training.settings import TrainingSettings


def actions() -> list[tuple[str, argparse.Action]]:
    """Every argument of every job, with the job."""
    (jobs,) = (each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return [
        (job, action) for job, parser in jobs.choices.items() for action in parser._actions if action.dest != "help"
    ]


def named(entry: tuple[str, argparse.Action]) -> str:
    return f"{entry[0]} {'/'.join(entry[1].option_strings) or entry[1].dest}"


def test_every_option_has_a_help_text_with_its_default() -> None:
    silent = [named(entry) for entry in actions() if not entry[1].help]
    assert silent == []
    without = [
        named(entry)
        for entry in actions()
        if entry[1].option_strings and not entry[1].required and "(default: " not in entry[1].help
    ]
    assert without == []
    assert len(actions()) > 60


def test_the_defaults_that_are_told_are_those_of_the_requests() -> None:
    told = {}
    for job, action in actions():
        if action.option_strings and not action.required and "(default: " in (action.help or ""):
            told[job, action.dest] = action.help.rpartition("(default: ")[2].removesuffix(")") % {
                "default": action.default
            }
    for name in ("preset", "iterations", "seed", "device"):
        assert told["train", name] == str(getattr(TrainingSettings(), name)), name
    for job, request in REQUESTS.items():
        for name in ("device", "file_format", "convention"):
            if hasattr(request, name) and (job, name) in told:
                assert told[job, name] == getattr(request, name), (job, name)
    assert told["demo", "output"] == REQUESTS["demo"].output
    assert told["figures", "cases"] == str(REQUESTS["figures"].cases)


@pytest.mark.parametrize(("wrong", "right"), [("learning_rte", "learning_rate"), ("roh", "rho"), ("foo", "fusion")])
def test_the_nearest_setting_is_offered(wrong: str, right: str) -> None:
    with pytest.raises(ForgettableSegError) as caught:
        TrainingSettings.from_dict({wrong: 1})
    assert f"Did you mean '{right}'?" in caught.value.hint


class Terminal(io.StringIO):
    """Standard input with somebody at it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "options", "stays"), [("n\n", [], True), ("\n", [], True), ("y\n", [], False), ("", ["--yes"], False)]
)
def test_removing_asks_on_a_terminal(
    answer: str, options: list[str], stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    install(make_package().write(tmp_path / "abdomen"))
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    code = cli.main(["models", "remove", "abdomen", *options])
    assert code == (130 if stays else 0)
    assert ("[y/N]" in capsys.readouterr().err) == (not options)
    if stays:
        assert find_model("abdomen").is_dir()
    else:
        assert not (Path.home() / ".forgettableseg" / "models" / "abdomen").exists()


def test_a_script_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(make_package().write(tmp_path / "abdomen"))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli.main(["models", "remove", "abdomen"]) == 0
