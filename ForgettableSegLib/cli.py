"""The command ``forgettableseg``: every job from a terminal, a script or a cluster."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

from ForgettableSegLib.command_line import build_parser
from ForgettableSegLib.errors import ForgettableSegError
from ForgettableSegLib.jobs.exit_codes import EXIT_CANCELLED
from ForgettableSegLib.jobs.job import Event, JobContext
from ForgettableSegLib.jobs.plain import plain
from ForgettableSegLib.jobs.requests import make_request
from ForgettableSegLib.threads import prepare_threads
from ForgettableSegLib.worker.console import console
from ForgettableSegLib.worker.runner import fail, run_job


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
    options = build_parser().parse_args(arguments)
    context = JobContext(job=options.job, sink=_json_sink() if options.json else console())
    with _signals_cancel(context):
        try:
            request = make_request(options.job, options.collect(options))
        except ForgettableSegError as error:
            return fail(context, error).exit_code
        if not _is_agreed(options):
            return EXIT_CANCELLED
        return run_job(request, context).exit_code


def _is_agreed(options: argparse.Namespace) -> bool:
    """Ask on a terminal before a model is removed for good; a script is not asked."""
    if options.job != "models" or options.action != "remove" or options.yes or not sys.stdin.isatty():
        return True
    print(f"Remove the model '{options.model}' and its files for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("Nothing was removed.", file=sys.stderr)
    return False


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
