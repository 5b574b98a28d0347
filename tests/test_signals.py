from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from wsi_unet.signals import interruptions_held, interruptions_kept_from_children


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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


def test_children_never_see_ctrl_c() -> None:
    code = (
        "import signal\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "print(signal.SIGINT in signal.sigpending())"
    )
    children = []

    def start_child() -> None:
        with interruptions_kept_from_children():
            signal.raise_signal(signal.SIGINT)
            command = [sys.executable, "-c", code]
            children.append(subprocess.run(command, capture_output=True, text=True, check=False))

    with pytest.raises(KeyboardInterrupt):
        start_child()
    assert [(child.returncode, child.stdout.strip()) for child in children] == [(0, "True")]


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
