"""The worker under PythonSlicer, over Qt's event loop: Slicer stays responsive while it computes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

import qt
import slicer

from ForgettableSegLib.worker.client import WorkerClient, worker_command
from ForgettableSegLib.worker.protocol import parse_line

from .blocking import shutdownBlockingWorker

_TICK_MS = 500


class LineSplitter:
    """Joins the chunks of a stream and cuts them into lines; what is not UTF-8 is replaced, not refused."""

    def __init__(self, onLine: Callable[[str], None]) -> None:
        self._onLine = onLine
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take a chunk and pass on the lines that it completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._onLine(line.decode("utf-8", errors="replace").rstrip("\r"))

    def close(self) -> None:
        """Pass on the last line, which may lack its end."""
        rest, self._rest = self._rest, b""
        if rest:
            self._onLine(rest.decode("utf-8", errors="replace").rstrip("\r"))


def pythonExecutable() -> str:
    """Return the Python in which the worker runs: Slicer's own, started with Slicer's libraries.

    Raises:
        OSError: if it is not there.
    """
    found = shutil.which("PythonSlicer")
    if found is None:
        msg = "PythonSlicer was not found beside Slicer; install Slicer again"
        raise OSError(msg)
    return found


class QProcessTransport:
    """The worker as a `QProcess`; see `Transport` in the worker client.

    Args:
        python: gives the interpreter when the worker is started.
    """

    def __init__(self, python: Callable[[], str] = pythonExecutable) -> None:
        self._python = python
        self._process: qt.QProcess | None = None
        self._workerPid = 0

    def start(self, on_line: Callable[[str], None], on_exit: Callable[[int], None]) -> None:
        """Start the worker; its lines and its end come on the main thread."""
        program, *arguments = worker_command(self._python())
        process = qt.QProcess()
        process.setProcessEnvironment(_environment())
        self._process, self._workerPid = process, 0

        def heard(line: str) -> None:
            if self._workerPid == 0 and (event := parse_line(line)) is not None:
                self._workerPid = int(event.get("pid") or 0)
            on_line(line)

        output, errors = LineSplitter(heard), LineSplitter(on_line)

        def readOutput() -> None:
            output.feed(bytes(process.readAllStandardOutput().data()))

        def readErrors() -> None:
            errors.feed(bytes(process.readAllStandardError().data()))

        def finished(code: int, status: int) -> None:
            readOutput()
            readErrors()
            output.close()
            errors.close()
            on_exit(-abs(code or signal.SIGTERM) if status == qt.QProcess.CrashExit else code)

        def failed(error: int) -> None:
            if error == qt.QProcess.FailedToStart:
                on_exit(127)

        process.connect("readyReadStandardOutput()", readOutput)
        process.connect("readyReadStandardError()", readErrors)
        process.connect("finished(int,QProcess::ExitStatus)", finished)
        process.connect("errorOccurred(QProcess::ProcessError)", failed)
        process.start(program, arguments)

    def write(self, line: str) -> None:
        """Write one line to the worker."""
        if self.is_running():
            self._process.write(qt.QByteArray((line.rstrip("\n") + "\n").encode()))

    def is_running(self) -> bool:
        """Whether the worker is starting or running."""
        return self._process is not None and self._process.state() != qt.QProcess.NotRunning

    def wait(self, timeout_s: float) -> bool:
        """Wait for the worker to end; True if it has."""
        return not self.is_running() or bool(self._process.waitForFinished(round(timeout_s * 1000)))

    def kill(self) -> None:
        """End the worker at once. The process that Qt knows is a launcher, so the worker itself is ended first."""
        if not self.is_running():
            return
        if self._workerPid:
            killProcess(self._workerPid)
        self._process.kill()
        self._process.waitForFinished(2000)

    @property
    def workerPid(self) -> int:
        """Process id of the worker itself, 0 before it has told it."""
        return self._workerPid


def killProcess(pid: int) -> None:
    """End a process at once; one that is gone is no error."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(pid)], capture_output=True, check=False)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def workerVariables() -> dict[str, str]:
    """Return the environment of the worker: that of Slicer before Slicer changed it, and UTF-8 everywhere."""
    return {**slicer.util.startupEnvironment(), "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}


def _environment() -> qt.QProcessEnvironment:
    environment = qt.QProcessEnvironment()
    variables: Mapping[str, str] = workerVariables()
    for name, value in variables.items():
        environment.insert(name, value)
    return environment


class Worker:
    """One warm worker for the whole module.

    Args:
        transport: how it is started and reached; only tests give another one.
    """

    def __init__(self, transport: QProcessTransport | None = None) -> None:
        self.transport = transport or QProcessTransport()
        self.client = WorkerClient(self.transport)
        self._timer = qt.QTimer()
        self._timer.setInterval(_TICK_MS)
        self._timer.connect("timeout()", self._tick)

    def submit(self, job: str, arguments: Mapping[str, object], onEvent: Callable[[dict], None]) -> str:
        """Queue a job; see `WorkerClient.submit`."""
        self._timer.start()
        return self.client.submit(job, arguments, onEvent)

    def shutdown(self) -> None:
        """End the worker and whatever it does."""
        self._timer.stop()
        self.client.shutdown(timeout_s=1.0)

    def _tick(self) -> None:
        self.client.tick()
        if not self.client.is_busy():
            self._timer.stop()


_shared: Worker | None = None


def sharedWorker() -> Worker:
    """Return the module's worker, made at the first call."""
    global _shared
    if _shared is None:
        _shared = Worker()
    return _shared


def shutdownSharedWorker() -> None:
    """End the module's workers, if there are any."""
    global _shared
    shutdownBlockingWorker()
    if _shared is not None:
        _shared.shutdown()
        _shared = None
