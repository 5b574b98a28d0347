"""Checking that all processes run the same software: at the start, and on workers that join."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client, Worker, WorkerPlugin
from distributed.versions import get_versions

from wsi_unet import logs
from wsi_unet._version import __version__
from wsi_unet.dask_cluster.workers import (
    ANSWER_SECONDS,
    ask_workers,
    list_usable_cores,
    list_workers,
    scheduler_address,
)
from wsi_unet.errors import OptionError

PACKAGES = ("wsi-unet", "dask", "distributed", "torch", "numpy", "zarr", "tiffslide")
"""The packages that decide how blocks are sent and what is computed from them."""

SCHEDULER_PACKAGES = ("wsi-unet", "dask", "distributed")
"""The packages that the scheduler needs: it unpickles tasks, but computes nothing."""

REFUSED = "wsi-unet-refused"
"""Dask's topic for the messages of workers that were refused."""

Versions = Mapping[str, str | None]


def installed_versions() -> dict[str, str | None]:
    """Return the versions of Python and `PACKAGES` here; None for what isn't installed."""
    return _reduce_versions(get_versions(PACKAGES)) | {"wsi-unet": __version__}


def describe_difference(actual: Versions, wanted: Versions) -> str | None:
    """Describe how a process's versions differ from the wanted ones; None if they don't.

    >>> describe_difference({"python": "3.11", "torch": None}, {"python": "3.11", "torch": "2.9"})
    'has no torch where this client has 2.9'
    """
    differing = [name for name, version in wanted.items() if actual.get(name) != version]
    if not differing:
        return None
    have = ", ".join(
        f"{name} {actual[name]}" if actual.get(name) else f"no {name}" for name in differing
    )
    want = ", ".join(str(wanted[name]) for name in differing)
    return f"has {have} where this client has {want}"


def check_versions(client: Client) -> None:
    """Check that the scheduler and all workers run the software that this process runs.

    Raises:
        OptionError: one of them doesn't, or doesn't answer.
    """
    wanted = installed_versions()
    scheduler = _reduce_versions(client.run_on_scheduler(get_versions, PACKAGES))
    needed = {name: wanted[name] for name in ("python", *SCHEDULER_PACKAGES)}
    problems = _find_problems(f"the scheduler {scheduler_address(client)}", scheduler, needed)
    workers = list_workers(client)
    for worker, answer in ask_workers(client, workers, get_versions, PACKAGES).items():
        if isinstance(answer, TimeoutError):
            problems.append(f"{worker} doesn't answer; stop it, or wait until it does")
        elif isinstance(answer, Exception):
            continue  # it has left
        else:
            problems += _find_problems(str(worker), _reduce_versions(answer), wanted)
    if not problems:
        problems = _find_broken_installations(client)
    if problems:
        others = f" ({len(problems) - 1} more differ)" if len(problems) > 1 else ""
        raise OptionError(f"{problems[0]}{others}")


def _find_problems(who: str, actual: Versions, wanted: Versions) -> list[str]:
    if actual.get("wsi-unet") is None and wanted.get("wsi-unet") is not None:
        return [f"{who} can't import wsi-unet: install {_this_version()} there"]
    differs = describe_difference(actual, wanted)
    return [] if differs is None else [f"{who} {differs}: install the same versions everywhere"]


def _find_broken_installations(client: Client) -> list[str]:
    """Call one of our functions on each worker, which fails if its installation is broken."""
    answers = ask_workers(client, list_workers(client), list_usable_cores)
    return [
        f"{worker} can't import wsi-unet ({answer}): install {_this_version()} there"
        for worker, answer in answers.items()
        if isinstance(answer, Exception) and not isinstance(answer, OSError)
    ]


def _this_version() -> str:
    return f"wsi-unet {__version__}"


def _reduce_versions(versions: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the versions that count: Python's minor one, and packages' without their build.

    torch's version says after a "+" which processors it was built for.
    """
    packages = versions["packages"]
    python = ".".join(packages["python"].split(".")[:2])
    return {"python": python} | {
        name: packages[name] and packages[name].partition("+")[0] for name in PACKAGES
    }


@contextmanager
def refuse_other_versions(client: Client) -> Iterator[None]:
    """Refuse workers that join inside with other software: they leave again at once."""
    guard = VersionGuard(installed_versions())
    client.subscribe_topic(REFUSED, _warn_of_refusal)
    # The scheduler has it at once and gives it to workers that join. Nobody waits for a worker that
    # hangs.
    with suppress(TimeoutError):
        client.sync(client.register_plugin, guard, callback_timeout=ANSWER_SECONDS)
    try:
        yield
    finally:
        if client.status == "running":
            client.unsubscribe_topic(REFUSED)
            # ValueError: another run removed it as it ended, or the scheduler was started again.
            with suppress(OSError, ValueError):
                client.sync(client.unregister_worker_plugin, guard.name, callback_timeout=2.0)


def _warn_of_refusal(event: tuple[float, str]) -> None:
    logs.warn(event[1])


class VersionGuard(WorkerPlugin):
    """A plugin that closes a worker which starts with other versions than the wanted ones.

    All runs use one name, so that the next run replaces the plugin of a client that has died.
    """

    name = "wsi-unet-versions"
    idempotent = False

    def __init__(self, wanted: Versions) -> None:
        self._wanted = dict(wanted)

    def setup(self, worker: Worker) -> None:
        """Compare the versions; Dask calls this when the worker starts."""
        differs = describe_difference(installed_versions(), self._wanted)
        if differs is None:
            return
        message = f"worker {worker.address} {differs}, so it was refused; install the same versions"
        logging.getLogger("distributed.worker").error(message)
        worker.log_event(REFUSED, message)
        worker.loop.add_callback(worker.close, reason="wsi-unet: other versions")
