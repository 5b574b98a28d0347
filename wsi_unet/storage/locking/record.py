"""The record in a lock: which process holds it, and since when."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path
from typing import Annotated, Literal

import psutil
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

LINE_LENGTH = 200
"""The longest text in a lock, characters."""


MOST_LOCK_BYTES = 1 << 16
"""The most bytes of a stored lock; it has a few hundred."""


def _check_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one printable line")
    return text


Line = Annotated[str, Field(max_length=LINE_LENGTH), AfterValidator(_check_line)]
"""Text that fits into a message of one line, whoever wrote it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LockOwner(_Record):
    """The process that holds a lock.

    Attributes:
        host: name of its machine.
        machine: identifies the machine's last start and the container, to distinguish those
            with the same host name; empty where the system doesn't say.
        pid: process id.
        started: seconds from the machine's start to the process's, which no change of the clock
            alters.
        user: name of the user who runs it.
        what: what it does, in words.
    """

    host: Line
    machine: Line
    pid: Annotated[int, Field(gt=0, lt=1 << 31)]
    started: Annotated[float, Field(allow_inf_nan=False)]
    user: Line
    what: Line = ""

    @classmethod
    def current(cls, what: str = "") -> LockOwner:
        """Return this process as an owner; text too long for one short line is cut off."""
        host, machine = _identify_machine()
        return cls(
            host=host,
            machine=machine,
            pid=os.getpid(),
            started=_start_time(psutil.Process()),
            user=_to_line(_user_name()),
            what=_to_line(what),
        )

    def is_running(self) -> bool | None:
        """Return whether the process is running; None where this process can't tell."""
        if (self.host, self.machine) != _identify_machine():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's process
        try:
            process = psutil.Process(self.pid)
            if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return False
            return abs(_start_time(process) - self.started) < 2  # from a boot time in whole s
        except psutil.Error:
            return None  # systems may hide other users' processes


class LockRecord(_Record):
    """The lock as it is stored.

    Attributes:
        token: identifies this lock among all others.
        owner: the process that holds it.
        since: when it was taken.
        beat: number of heartbeats so far.
        beat_time: time of the last one, by the owner's clock.
    """

    format_version: Literal[1] = 1
    token: Line
    owner: LockOwner
    since: AwareDatetime
    beat: Annotated[int, Field(ge=0)]
    beat_time: AwareDatetime

    @classmethod
    def parse(cls, content: bytes | None) -> LockRecord | None:
        """Return a stored lock, None if there is none, or a damaged one, or another version's."""
        try:
            return None if content is None else cls.model_validate_json(content)
        except ValidationError:
            return None

    def to_bytes(self) -> bytes:
        """Return the lock as it is stored."""
        return self.model_dump_json(indent=1).encode()


def _to_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)[
        :LINE_LENGTH
    ]


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def _identify_machine() -> tuple[str, str]:
    """Return the machine's name, and what distinguishes it from others of that name."""
    host = _to_line(socket.gethostname())
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return host, _to_line(f"{boot} {Path('/proc/self/ns/pid').readlink()}")
    except OSError:
        return host, ""


def _start_time(process: psutil.Process) -> float:
    """Return the seconds from the machine's start to the process's."""
    boot: float = psutil.boot_time()  # first: some versions of psutil use the value just read
    started: float = process.create_time()
    return round(started - boot, 2)
