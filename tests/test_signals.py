from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from wsi_unet.signals import (
    interrupting_signals,
    interruptions_held,
    interruptions_kept_from_children,
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruptions_arrive_after_what_must_be_atomic(number: signal.Signals) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def do_atomically() -> None:
        with interruptions_held():
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append("all of it")

    previous = signal.signal(number, interrupt)
    done: list[str] = []
    try:
        with pytest.raises(KeyboardInterrupt):
            do_atomically()
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, previous)
    assert done == ["all of it"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_children_never_see_what_a_terminal_sends(number: signal.Signals) -> None:
    code = f"import signal\nsignal.raise_signal({number})\nprint({number} in signal.sigpending())"

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(number, interrupt)
    children = []

    def start_child() -> None:
        with interruptions_kept_from_children():
            signal.raise_signal(number)
            command = [sys.executable, "-c", code]
            children.append(subprocess.run(command, capture_output=True, text=True, check=False))

    try:
        with pytest.raises(KeyboardInterrupt):
            start_child()
    finally:
        signal.signal(number, previous)
    assert [(child.returncode, child.stdout.strip()) for child in children] == [(0, "True")]


def test_an_ignored_hangup_stays_ignored() -> None:
    """As nohup asks for."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in interrupting_signals()
        with interruptions_held():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_other_threads_get_no_signals() -> None:
    """There is nothing to hold back in them, and Python would refuse to."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with interruptions_held(), interruptions_kept_from_children():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures
