"""What a lock says: which process holds it, told apart from all others, and since when."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path
from typing import Annotated, Literal

import psutil
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

LINE_LENGTH = 200
"""Characters."""


def _check_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one printable line")
    return text


Line = Annotated[str, Field(max_length=LINE_LENGTH), AfterValidator(_check_line)]
"""Text that a message of one line can contain, whoever wrote it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LockOwner(_Record):
    """The process that holds a lock.

    Attributes:
        host: name of its machine.
        machine: tells machines and containers of the same name apart, and a machine from itself
            before it was restarted; empty where the system doesn't say.
        pid: process id.
        started: when the process started, in seconds since the machine did, since clocks are set.
        user: who runs it.
        what: what it does, for people.
    """

    host: Line
    machine: Line
    pid: Annotated[int, Field(gt=0, lt=1 << 31)]
    started: Annotated[float, Field(allow_inf_nan=False)]
    user: Line
    what: Line = ""

    @classmethod
    def current(cls, what: str = "") -> LockOwner:
        """Return this process as an owner; what doesn't fit in one short line is cut off."""
        host, machine = _here()
        return cls(
            host=host,
            machine=machine,
            pid=os.getpid(),
            started=_started(psutil.Process()),
            user=_line(_user()),
            what=_line(what),
        )

    def runs(self) -> bool | None:
        """Whether the process is there; None where that can't be told from here."""
        if (self.host, self.machine) != _here():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # somebody else's
        try:
            process = psutil.Process(self.pid)
            if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return False
            return abs(_started(process) - self.started) < 2  # it is computed with whole seconds
        except psutil.Error:
            return None  # systems may hide other users' processes


class LockRecord(_Record):
    """The lock as it is stored.

    Attributes:
        token: of this lock and no other.
        owner: who holds it.
        since: since when.
        beat: number of signs of life so far.
        beat_time: when the last one was, by the owner's clock.
    """

    format_version: Literal[1] = 1
    token: Line
    owner: LockOwner
    since: AwareDatetime
    beat: Annotated[int, Field(ge=0)]
    beat_time: AwareDatetime

    @classmethod
    def parse(cls, content: bytes | None) -> LockRecord | None:
        """Return what is stored, None if that is nothing, damaged or of another version."""
        try:
            return None if content is None else cls.model_validate_json(content)
        except ValidationError:
            return None

    def to_bytes(self) -> bytes:
        """Return what is to be stored."""
        return self.model_dump_json(indent=1).encode()


def _line(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)[:LINE_LENGTH]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def _here() -> tuple[str, str]:
    """Return the machine's name, and what tells it from others of that name."""
    host = _line(socket.gethostname())
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return host, _line(f"{boot} {Path('/proc/self/ns/pid').readlink()}")
    except OSError:
        return host, ""


def _started(process: psutil.Process) -> float:
    boot: float = psutil.boot_time()  # first: some versions of psutil use the value just read
    started: float = process.create_time()
    return round(started - boot, 2)
