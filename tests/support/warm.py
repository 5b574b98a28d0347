"""Starting Python programs that have imported everything already.

Importing PyTorch and Dask takes three seconds of a core, more than most tests compute. Here one
process imports them, and is forked for every program; what it starts is a real process: a child of
the test's, with its own id, streams, folder and environment. `Popen` and `run` take what those of
`subprocess` take. What Python and libraries read when they start (`MALLOC_…`, `PYTHONWARNINGS`) has
no effect, and what the interpreter frees at its end isn't freed, so tests of such things start
Python as usual.
"""

from __future__ import annotations

import atexit
import ctypes
import inspect
import io
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from support import cheap_forks

TESTS = Path(__file__).resolve().parents[1]
MODULES = (
    "support.unsynced",
    "torch", "distributed", "zarr", "tiffslide", "scipy.ndimage", "wsi_unet.training.run",
    "wsi_unet.segmentation.segment", "wsi_unet.segmentation.worker.task",
    "wsi_unet.slides.readers.tiff", "wsi_unet.slides.readers.image",
    "wsi_unet.slides.tissue.detection", "wsi_unet_cli.segment.command", "wsi_unet_cli.main",
    "wsi_unet_cli.train.command",
)  # fmt: skip

_PR_SET_CHILD_SUBREAPER = 36


def fork_dask_workers() -> None:
    """Let Dask's nannies in this process fork their workers, from a process that is warm too.

    Environment variables that Dask sets for workers before they start have no effect then.
    """
    import dask
    import distributed.utils

    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    distributed.utils.get_mp_context()  # chooses what to import, the first time
    multiprocessing.get_context("forkserver").set_forkserver_preload([*MODULES])


def find_dask_workers() -> list[psutil.Process]:
    """Return the worker processes that this process has started, forked or not, oldest first."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            parent = " ".join(psutil.Process(child.ppid()).cmdline())
            if (
                "--multiprocessing-fork" in child.cmdline()
                or "multiprocessing.forkserver" in parent
            ):
                found.append(child)
    return sorted(found, key=psutil.Process.create_time)


def dask_setup(nanny: Any) -> None:
    """Do so in a nanny of its own: `dask worker --preload-nanny support.warm`."""
    fork_dask_workers()


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen([sys.executable, …])`, started by a fork."""

    def _execute_child(self, *given: Any, **named: Any) -> None:
        usual = subprocess.Popen._execute_child  # type: ignore[attr-defined]
        wanted = inspect.signature(usual).bind(self, *given, **named).arguments
        streams = [wanted[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        streams = [own if own != -1 else number for number, own in enumerate(streams)]
        program = [os.fspath(word) for word in wanted["args"]]
        assert program[0] == sys.executable, program
        job = {
            "program": program[1:],
            "folder": os.fspath(wanted["cwd"] or Path.cwd()),
            "environment": dict(os.environ if wanted["env"] is None else wanted["env"]),
            "session": wanted["start_new_session"],
        }
        self.pid = _server().start(job, streams)
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(wanted[name] for name in pipes))  # type: ignore[attr-defined]


def run(
    program: Any, *, check: bool = False, timeout: float | None = None, **named: Any
) -> subprocess.CompletedProcess[Any]:
    """Do as `subprocess.run`, by a fork."""
    if named.pop("capture_output", False):
        named |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(program, **named) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, out, err)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class _Server:
    """The process that is forked."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            # OpenBLAS would start threads when it is loaded, and a fork may have none.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._socket = ours
        atexit.register(self._stop)

    def start(self, job: dict[str, Any], streams: list[int]) -> int:
        """Return the process id of a fork that runs `job`."""
        message = json.dumps(job).encode()
        # A fork's parent ends at once; this process, not init, becomes its parent then.
        _take_orphans(True)
        try:
            socket.send_fds(self._socket, [len(message).to_bytes(8, "little")], streams)
            self._socket.sendall(message)
            return int.from_bytes(_receive(self._socket, 8), "little")
        finally:
            _take_orphans(False)

    def _stop(self) -> None:
        self._socket.close()
        self._process.wait()


_SERVERS: dict[int, _Server] = {}
_STARTING = threading.Lock()


def _server() -> _Server:
    """Return the server of this process (a fork must not use its parent's)."""
    with _STARTING:
        if os.getpid() not in _SERVERS:
            _SERVERS[os.getpid()] = _Server()
        return _SERVERS[os.getpid()]


def _take_orphans(yes: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for every job; return it in the fork."""
    while True:
        try:
            head, streams, _, _ = socket.recv_fds(connection, 8, 3)
            if not head:
                sys.exit()
            head += _receive(connection, 8 - len(head))
            job: dict[str, Any] = json.loads(_receive(connection, int.from_bytes(head, "little")))
        except (EOFError, ConnectionError):
            sys.exit()
        ours, theirs = os.pipe()
        between = os.fork()
        if not between:
            if child := os.fork():
                os.write(theirs, child.to_bytes(8, "little"))
                os._exit(0)
            os.close(ours)
            os.close(theirs)
            connection.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return job
        os.waitpid(between, 0)  # from here on the child is the test's
        connection.sendall(os.read(ours, 8))
        for file in (ours, theirs, *streams):
            os.close(file)


def _run(job: dict[str, Any]) -> None:
    """Run a program in this process as Python would, options of Python's own aside."""
    import runpy

    import dask
    import torch

    if job["session"]:
        os.setsid()
    # Opened anew, since what they are open on has another kind than the server's.
    files = [io.FileIO(number, mode, closefd=False) for number, mode in enumerate("rww")]
    sys.stdin = io.TextIOWrapper(io.BufferedReader(files[0]))
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(files[1]))
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(files[2]), errors="backslashreplace", line_buffering=True
    )
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    named = [os.environ[name] for name in ("DASK_CONFIG",) if name in os.environ]
    dask.config.refresh(paths=[*dask.config.paths, *named])
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    how, *rest = job["program"]
    sys.path[0] = str(Path.cwd()) if how == "-m" else "" if how == "-c" else str(Path(how).parent)
    sys.path[1:1] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if how == "-m":
        sys.argv = rest
        runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
    elif how == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], main.__dict__)
    else:
        sys.argv = job["program"]
        main.__file__ = how
        exec(compile(Path(how).read_bytes(), how, "exec"), main.__dict__)


if __name__ == "__main__":
    import importlib

    for _module in MODULES:
        importlib.import_module(_module)
    cheap_forks.prepare()
    _job = _serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        _run(_job)
    except SystemExit as _exit:
        if not isinstance(_exit.code, int | None):
            raise
        cheap_forks.end(_exit.code or 0)
    cheap_forks.end(0)
