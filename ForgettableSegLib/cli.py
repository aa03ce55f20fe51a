"""The command ``forgettableseg``: every job from a terminal, a script or a cluster."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ForgettableSegLib import __version__
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.arguments import CONVENTIONS, FILE_FORMATS, MODEL_ACTIONS
from ForgettableSegLib.jobs.job import Event, JobContext
from ForgettableSegLib.jobs.plain import plain
from ForgettableSegLib.jobs.requests import make_request
from ForgettableSegLib.threads import prepare_threads
from ForgettableSegLib.worker.console import console
from ForgettableSegLib.worker.runner import fail, run_job

_CASES_HELP = "case list: a dataset folder (MSD, nnU-Net), a MONAI datalist (.json), a .csv, or 'images,labels' folders"
_MODEL_HELP = "name of an installed model, or path of a model package"
_EPILOG = "Exit codes: 0 done, 1 some cases failed, 2 bad request, 130 cancelled."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line.

    Returns:
        The exit code: 0 done, 1 some cases failed, 2 bad request, 130 cancelled.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["worker"]:
        from ForgettableSegLib.worker.process import main as serve

        serve(arguments[1:])
    prepare_threads()
    options = _parser().parse_args(arguments)
    context = JobContext(job=options.job, sink=_json_sink() if options.json else console())
    with _signals_cancel(context):
        try:
            request = make_request(options.job, options.collect(options))
        except ForgettableSegError as error:
            return fail(context, error).exit_code
        return run_job(request, context).exit_code


def _json_sink() -> Callable[[Event], None]:
    from ForgettableSegLib.worker.streams import EventStream

    stream = EventStream()

    def sink(event: Event) -> None:
        stream.write_line(json.dumps(plain(event), allow_nan=False) + "\n")
        if event["event"] == "failed":
            print(f"Error: {event['text']} {event['hint']}".rstrip(), file=sys.stderr)

    return sink


@contextlib.contextmanager
def _signals_cancel(context: JobContext) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop the job at its next safe point, and a second one at once."""

    def stop(number: int, frame: object) -> None:
        if context.is_cancelled:
            raise KeyboardInterrupt
        context.cancel()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forgettableseg",
        description="Segment medical images, see what is hard for the model, and fine-tune it on the hard samples.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", dest="job", required=True, metavar="COMMAND")
    for add in (_segment, _train, _finetune, _resume, _evaluate, _audit, _validate, _models, _check, _demo):
        add(commands)
    for add in (_experiment, _figures):
        add(commands)
    commands.add_parser("worker", help="serve jobs over standard streams, for programs (see Documentation/protocol.md)")
    return parser


def _command(
    commands: Any, name: str, summary: str, collect: Callable[[argparse.Namespace], Mapping[str, Any]] = vars
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=_EPILOG)
    parser.add_argument("--json", action="store_true", help="print events as lines of JSON instead of text")
    parser.set_defaults(collect=lambda options: _without_own(collect(options)))
    return parser


def _without_own(arguments: Mapping[str, Any]) -> dict[str, Any]:
    own = ("job", "json", "collect")
    return {name: value for name, value in arguments.items() if name not in own and value is not None}


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:<number> (default: auto)")


def _segment(commands: Any) -> None:
    parser = _command(commands, "segment", "segment images with a model", _segment_arguments)
    parser.add_argument("input", help="an image, a folder of images, a DICOM folder or a case list")
    parser.add_argument("--model", required=True, help=_MODEL_HELP)
    parser.add_argument("--output", required=True, help="folder that receives one subfolder a case and the summary")
    parser.add_argument("--no-heatmap", dest="heatmap", action="store_false", help="leave the maps of difficulty out")
    parser.add_argument("--probabilities", action="store_true", help="also write the probability of every class")
    parser.add_argument("--format", dest="file_format", choices=FILE_FORMATS, default=FILE_FORMATS[0])
    box = ("X0", "Y0", "Z0", "X1", "Y1", "Z1")
    parser.add_argument("--region", type=int, nargs=6, metavar=box, help="segment only this box of voxel indices")
    _add_device(parser)


def _segment_arguments(options: argparse.Namespace) -> dict[str, Any]:
    region = options.region and [options.region[:3], options.region[3:]]
    return {**vars(options), "region": region}


def _train(commands: Any) -> None:
    _add_training(_command(commands, "train", "train a model from scratch", _training_arguments))


def _finetune(commands: Any) -> None:
    parser = _command(commands, "finetune", "go on training a model on your own cases", _training_arguments)
    parser.add_argument("--model", required=True, help=_MODEL_HELP)
    _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cases", help=_CASES_HELP)
    # The second name is for torchrun, which takes `--run` for a short form of two options of its own.
    parser.add_argument("--run", "--run-folder", required=True, help="folder of the run, new or empty")
    parser.add_argument("--task", help="JSON file with modality, channels and classes, if the case list has none")
    parser.add_argument("--name", help="name of the model that comes out")
    settings = parser.add_argument_group("settings")
    settings.add_argument("--preset", help="recommended (default) or paper")
    settings.add_argument("--spatial-dims", type=int, help="2 (slices) or 3 (volumes)")
    settings.add_argument("--patch-size", type=int, nargs="+", metavar="N")
    settings.add_argument("--iterations", type=int, metavar="N")
    settings.add_argument("--epochs", type=int, metavar="N")
    settings.add_argument("--minutes", type=float, metavar="T")
    settings.add_argument("--seed", type=int, metavar="N")
    settings.add_argument("--device", help="auto, cpu, mps, cuda or cuda:<number>")
    _add_set(settings)


def _add_set(parser: Any) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other training setting (Documentation/settings.md); the value is JSON or text; may be given often",
    )


_SETTING_FLAGS = ("preset", "spatial_dims", "patch_size", "iterations", "epochs", "minutes", "seed", "device")


def _training_arguments(options: argparse.Namespace) -> dict[str, Any]:
    arguments = vars(options).copy()
    settings = {name: arguments.pop(name) for name in _SETTING_FLAGS}
    settings = {name: value for name, value in settings.items() if value is not None}
    settings |= _assigned(arguments.pop("set"))
    return {**arguments, "settings": settings}


def _assigned(assignments: Sequence[str]) -> dict[str, Any]:
    settings = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            message = f"'--set {assignment}' is not of the form NAME=VALUE."
            raise ForgettableSegError(ErrorCode.SETTING_INVALID, message)
        settings[name] = _value(value)
    return settings


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _resume(commands: Any) -> None:
    parser = _command(commands, "resume", "go on with a training that was cancelled or cut off")
    parser.add_argument("run", help="folder of the run")


def _evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", "compare segmentations with references")
    parser.add_argument("--predictions", help="folder of label maps")
    parser.add_argument("--references", help="folder of label maps, or a case list; with --predictions")
    parser.add_argument("--compare", help="second folder of label maps, for a paired comparison; with --predictions")
    parser.add_argument("--model", help=f"{_MODEL_HELP}; with --cases")
    parser.add_argument("--cases", help=f"{_CASES_HELP}; with --model")
    parser.add_argument("--task", help="JSON file with the classes, if neither references nor model hold them")
    parser.add_argument("--output", required=True, help="folder that receives the report")
    parser.add_argument("--convention", choices=CONVENTIONS, default=CONVENTIONS[0])
    _add_device(parser)


def _audit(commands: Any) -> None:
    parser = _command(commands, "audit", "show where labelled cases are hard for a model or labelled doubtfully")
    parser.add_argument("cases", help=_CASES_HELP)
    parser.add_argument("--model", required=True, help=_MODEL_HELP)
    parser.add_argument("--output", required=True, help="folder that receives one subfolder a case")
    parser.add_argument("--format", dest="file_format", choices=FILE_FORMATS, default=FILE_FORMATS[0])
    _add_device(parser)


def _validate(commands: Any) -> None:
    parser = _command(commands, "validate", "look for everything that would spoil a training on these cases")
    parser.add_argument("cases", help=_CASES_HELP)
    parser.add_argument("--task", help="JSON file with modality, channels and classes, if the case list has none")
    parser.add_argument("--model", help="model that is to be fine-tuned on them, whose classes are then meant")


def _models(commands: Any) -> None:
    parser = _command(commands, "models", "list, show, install, export or remove models", _models_arguments)
    parser.add_argument("action", choices=MODEL_ACTIONS)
    parser.add_argument("model", nargs="?", help="name of the model; for install, the package")
    parser.add_argument("path", nargs="?", help="for export, the .zip or folder to write")


def _models_arguments(options: argparse.Namespace) -> dict[str, Any]:
    if options.action == "install":
        return {"action": options.action, "path": options.model}
    return {"action": options.action, "name": options.model, "path": options.path}


def _check(commands: Any) -> None:
    _add_device(_command(commands, "check", "say which versions and devices there are, and compute for a moment"))


def _demo(commands: Any) -> None:
    parser = _command(commands, "demo", "segment a real brain and fine-tune a small model")
    parser.add_argument("--output", default="demo-output", help="folder that receives what it makes")
    _add_device(parser)


def _experiment(commands: Any) -> None:
    parser = _command(commands, "experiment", "train the variants of a plan and compare them", _experiment_arguments)
    parser.add_argument("plan", help="a ready experiment (table1 to table8, fusion, ...), or a JSON file with a plan")
    parser.add_argument("--cases", required=True, help=_CASES_HELP)
    parser.add_argument("--output", required=True, help="folder that receives runs and results; run again to go on")
    parser.add_argument("--task", help="JSON file with modality, channels and classes, if the case list has none")
    parser.add_argument("--shard", metavar="I/N", help="do the I-th of N parts of the runs, beside other processes")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="instead of the plan's")
    parser.add_argument("--iterations", type=int, metavar="N", help="of every run, instead of the plan's")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="only these")
    _add_set(parser)
    _add_device(parser)


def _experiment_arguments(options: argparse.Namespace) -> dict[str, Any]:
    arguments = vars(options).copy()
    settings = _assigned(arguments.pop("set"))
    return {**arguments, "settings": settings}


def _figures(commands: Any) -> None:
    parser = _command(commands, "figures", "draw errors, class activation and the bank of a finished run")
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--output", required=True, help="folder that receives the figures")
    parser.add_argument("--cases", type=int, default=4, metavar="N", help="how many, the worst first (default: 4)")
    _add_device(parser)
