"""The same software everywhere: checked at the start, and again on workers that join later."""

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
    cores_of_this_process,
    list_workers,
    scheduler_address,
)
from wsi_unet.errors import OptionError

PACKAGES = ("wsi-unet", "dask", "distributed", "torch", "numpy", "zarr", "tiffslide")
"""What decides how blocks travel and what is computed from them."""

SCHEDULER_PACKAGES = ("wsi-unet", "dask", "distributed")
"""The scheduler unpacks tasks, but computes nothing."""

REFUSED = "wsi-unet-refused"
"""Dask's topic on which workers that were refused tell why."""

Versions = Mapping[str, str | None]


def installed_versions() -> dict[str, str | None]:
    """Return the versions of Python and `PACKAGES` here; None for what isn't installed."""
    return _plain(get_versions(PACKAGES)) | {"wsi-unet": __version__}


def difference(found: Versions, wanted: Versions) -> str | None:
    """Say in what a process differs from what is wanted of it; None if in nothing.

    >>> difference({"python": "3.11", "torch": None}, {"python": "3.11", "torch": "2.9"})
    'has no torch where this client has 2.9'
    """
    differing = [name for name, version in wanted.items() if found.get(name) != version]
    if not differing:
        return None
    have = ", ".join(
        f"{name} {found[name]}" if found.get(name) else f"no {name}" for name in differing
    )
    want = ", ".join(str(wanted[name]) for name in differing)
    return f"has {have} where this client has {want}"


def check_versions(client: Client) -> None:
    """Make sure that the scheduler and all workers run the software that this process runs.

    Raises:
        OptionError: if one doesn't, or doesn't answer.
    """
    wanted = installed_versions()
    scheduler = _plain(client.run_on_scheduler(get_versions, PACKAGES))
    needed = {name: wanted[name] for name in ("python", *SCHEDULER_PACKAGES)}
    problems = _problems(f"the scheduler {scheduler_address(client)}", scheduler, needed)
    workers = list_workers(client)
    for worker, answer in ask_workers(client, workers, get_versions, PACKAGES).items():
        if isinstance(answer, TimeoutError):
            problems.append(f"{worker} doesn't answer; stop it, or wait until it does")
        elif isinstance(answer, Exception):
            continue  # it has left
        else:
            problems += _problems(str(worker), _plain(answer), wanted)
    if not problems:
        problems = _not_importable(client)
    if problems:
        others = f" ({len(problems) - 1} more differ)" if len(problems) > 1 else ""
        raise OptionError(f"{problems[0]}{others}")


def _problems(who: str, found: Versions, wanted: Versions) -> list[str]:
    if found.get("wsi-unet") is None and wanted.get("wsi-unet") is not None:
        return [f"{who} can't import wsi-unet: install {_this_version()} there"]
    differs = difference(found, wanted)
    return [] if differs is None else [f"{who} {differs}: install the same versions everywhere"]


def _not_importable(client: Client) -> list[str]:
    """Ask for something of ours, which an installation that is broken can't answer."""
    answers = ask_workers(client, list_workers(client), cores_of_this_process)
    return [
        f"{worker} can't import wsi-unet ({answer}): install {_this_version()} there"
        for worker, answer in answers.items()
        if isinstance(answer, Exception) and not isinstance(answer, OSError)
    ]


def _this_version() -> str:
    return f"wsi-unet {__version__}"


def _plain(versions: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what counts: Python's minor version, and packages without how they were built.

    torch's version says after a "+" which processors it was built for.
    """
    packages = versions["packages"]
    python = ".".join(packages["python"].split(".")[:2])
    return {"python": python} | {
        name: packages[name] and packages[name].partition("+")[0] for name in PACKAGES
    }


@contextmanager
def refuse_other_versions(client: Client) -> Iterator[None]:
    """Let workers that join inside leave again at once if their software differs from ours."""
    guard = VersionGuard(installed_versions())
    client.subscribe_topic(REFUSED, _tell)
    # The scheduler knows at once, and from it those who join; a worker that hangs isn't waited for.
    with suppress(TimeoutError):
        client.sync(client.register_plugin, guard, callback_timeout=ANSWER_SECONDS)
    try:
        yield
    finally:
        if client.status == "running":
            client.unsubscribe_topic(REFUSED)
            # ValueError: another run took it away as it ended, or the scheduler was started anew.
            with suppress(OSError, ValueError):
                client.sync(client.unregister_worker_plugin, guard.name, callback_timeout=2.0)


def _tell(event: tuple[float, str]) -> None:
    logs.warn(event[1])


class VersionGuard(WorkerPlugin):
    """Closes a worker that starts with other versions than these.

    One for all runs, so that one whose client has died is replaced by the next run's.
    """

    name = "wsi-unet-versions"
    idempotent = False

    def __init__(self, wanted: Versions) -> None:
        self._wanted = dict(wanted)

    def setup(self, worker: Worker) -> None:
        """Look; Dask calls this as the worker starts."""
        differs = difference(installed_versions(), self._wanted)
        if differs is None:
            return
        message = f"worker {worker.address} {differs}: it leaves; install the same versions"
        logging.getLogger("distributed.worker").error(message)
        worker.log_event(REFUSED, message)
        worker.loop.add_callback(worker.close, reason="wsi-unet: other versions")
