"""Connecting to an existing Dask scheduler: its address, TLS, and one line when that fails."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Security
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.comm.core import connect
from distributed.utils import LoopRunner
from distributed.versions import VersionMismatchWarning

from wsi_unet.errors import ClusterError, OptionError
from wsi_unet.regular_files import check_regular, read_regular

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer, at first and after the connection was lost."""

WORKERS_SECONDS = 60.0
"""How long to wait for the first worker, which may still be starting."""

LARGEST_FILE = 1 << 20
"""Bytes that a scheduler's file may have."""

_SETTINGS = {"distributed.comm.timeouts.tcp": "20s"}
"""A scheduler whose machine is gone is noticed after this time; then `CONNECT_SECONDS` count."""

_ENCRYPTED = ("tls", "wss")
"""The protocols that are encrypted and authenticated; all others, known or not, count as plain."""


@contextmanager
def connect_client(
    scheduler: str,
    *,
    tls_ca: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    insecure: bool = False,
) -> Iterator[Client]:
    """Yield a client of a running scheduler that has workers.

    Args:
        scheduler: its address, or the path of the file that it wrote its address to.
        tls_ca: file with the CA certificate of the cluster. These three replace Dask's settings.
        tls_cert: file with this client's certificate.
        tls_key: file with its key; None if the key is in the certificate's file.
        insecure: whether the connection may leave this machine without TLS.

    Raises:
        OptionError: there is no such scheduler, it refuses the connection, or TLS is needed.
        ClusterError: it has no workers.
    """
    tls_files = {
        name: value
        for name, value in (
            ("tls_ca_file", tls_ca),
            ("tls_client_cert", tls_cert),
            ("tls_client_key", tls_key),
        )
        if value is not None
    }
    address = _find_address(scheduler, encrypted=bool(tls_files))
    security = _make_security(address, tls_files)
    check_answer(address, security, insecure=insecure)
    with dask.config.set(_SETTINGS):
        try:
            with warnings.catch_warnings():
                # `check_versions` checks them in full once there is a connection.
                warnings.simplefilter("ignore", VersionMismatchWarning)
                client = Client(address, timeout=CONNECT_SECONDS, security=security)
        except (OSError, ImportError) as error:
            raise OptionError(
                f"the scheduler at {address} can't be used ({type(error).__name__}: {error})"
            ) from error
        try:
            _wait_for_workers(client, address)
            yield client
        finally:
            with suppress(TimeoutError):  # a scheduler that hangs doesn't answer
                client.close()


def check_answer(address: str, security: Security | None, *, insecure: bool = False) -> None:
    """Connect once to check that a scheduler answers: `Client` says less, and may wait forever.

    Raises:
        OptionError: the host is unknown, no scheduler answers there, or, unless `insecure`, the
            connection would leave this machine without TLS.
    """
    protocol, location = parse_address(address)
    host, port = parse_host_port(location)
    try:
        ends = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError, OverflowError) as error:  # a label's length, the port
        raise OptionError(f"unknown host {host!r} in the scheduler's address {address}") from error
    local = all(ipaddress.ip_address(end[4][0]).is_loopback for end in ends)
    if not (protocol in _ENCRYPTED or local or insecure):
        raise OptionError(
            f"the connection to {address} wouldn't be encrypted, and whoever reaches that port can "
            "run programs on the cluster and here; start the scheduler with TLS and give `tls_ca`, "
            "`tls_cert` and `tls_key`, or allow it with `insecure` in a network where you trust "
            "everybody",
            option="insecure",
        )
    if security is None and protocol in _ENCRYPTED:
        return  # Dask's configuration names a program that finds the certificates
    arguments = {} if security is None else security.get_connection_args("client")
    try:
        # In a thread of its own: this one may have an event loop already, as in notebooks.
        LoopRunner().run_sync(_connect_once, address, arguments)
    except (OSError, ValueError, ImportError) as error:
        raise _explain_failure(address, error) from error


async def _connect_once(address: str, arguments: dict[str, Any]) -> None:
    """Connect, and wait for the scheduler's first message."""
    connecting = connect(address, timeout=CONNECT_SECONDS, **arguments)
    try:
        # Dask limits the time for connecting, not that for the message.
        comm = await asyncio.wait_for(connecting, CONNECT_SECONDS + 1)
    except TimeoutError as error:
        raise TimeoutError(f"no answer in {CONNECT_SECONDS:g} s") from error
    await comm.close()


def _explain_failure(address: str, error: Exception) -> OptionError:
    """Return the error that says why no scheduler can be reached, from its first cause."""
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, TimeoutError):
        cause = cause.__cause__
    reason = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
    reason = reason or str(cause).rpartition(">: ")[2] or "no answer in time"  # "in <TLS …>: EOF"
    if parse_address(address)[0] in _ENCRYPTED:
        files = "`tls_ca`, `tls_cert` and `tls_key`"
        cure = f"check that it speaks TLS, and that {files} belong to its cluster"
    else:
        cure = "check the address, or use its tls:// address if it wants TLS"
    return OptionError(
        f"no Dask scheduler answers at {address} ({reason}); start one with `dask scheduler`, "
        f"{cure}"
    )


def _wait_for_workers(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKERS_SECONDS)
    except (TimeoutError, OSError) as error:
        raise ClusterError(
            f"the scheduler at {address} has no workers; start some with `dask worker`"
        ) from error


def _find_address(scheduler: str, *, encrypted: bool) -> str:
    """Return the scheduler's address with its protocol, read from its file if that is given.

    Raises:
        OptionError: it is neither an address nor a file that holds one.
    """
    given = scheduler
    if "://" not in scheduler and (scheduler.endswith(".json") or "/" in scheduler):
        given = _read_address(Path(scheduler))
    default = "tls" if encrypted else dask.config.get("distributed.comm.default-scheme")
    address = given if "://" in given else f"{default}://{given}"
    try:
        parse_host_port(parse_address(address)[1])
    except ValueError as error:
        if given is not scheduler:
            raise OptionError(
                f"the scheduler file {scheduler} holds {given!r}, which isn't an address like "
                "tcp://10.0.0.1:8786",
                option="scheduler",
            ) from error
        raise OptionError(
            f"scheduler {scheduler!r} is neither an address like tcp://10.0.0.1:8786 nor the path "
            "of a scheduler file",
            option="scheduler",
        ) from error
    return address


def _read_address(path: Path) -> str:
    """Return the address in a scheduler's file, which it may still have to write.

    Raises:
        OptionError: there is no address in time.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return str(json.loads(read_regular(path, LARGEST_FILE))["address"])
        except FileNotFoundError:
            reason = "isn't there"
        except OSError as error:
            raise OptionError(f"the scheduler file {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, RecursionError):
            reason = "doesn't hold an address"
        if time.monotonic() > deadline:
            raise OptionError(
                f"the scheduler file {path} {reason}; tell the scheduler to write it when you "
                "start it with `dask scheduler`"
            )
        time.sleep(0.1)


def _make_security(address: str, tls_files: dict[str, str]) -> Security | None:
    """Return the certificates to use; None leaves that to Dask's settings.

    Raises:
        OptionError: certificates are unusable or missing, or the address isn't encrypted.
    """
    if not tls_files and dask.config.get("distributed.client.security-loader"):
        return None
    for path in tls_files.values():
        try:
            check_regular(path)
        except OSError as error:
            raise OptionError(f"the TLS file {path} can't be read: {error.strerror}") from error
    security = Security(**tls_files, require_encryption=True) if tls_files else Security()
    files = security.get_tls_config_for_role("client")
    encrypted = parse_address(address)[0] in _ENCRYPTED
    if not encrypted and security.require_encryption:
        raise OptionError(
            f"the scheduler's address {address} isn't encrypted, but TLS files are given; use "
            "its tls:// address"
        )
    if encrypted and not (files["ca_file"] and files["cert"]):
        raise OptionError(
            f"{address} needs certificates: give `tls_ca`, `tls_cert` and `tls_key`, or set "
            "distributed.comm.tls in Dask's configuration"
        )
    try:
        security.get_connection_args("client")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise OptionError(
            f"the TLS files can't be used ({reason}): CA {files['ca_file']}, certificate "
            f"{files['cert']}, key {files['key']}"
        ) from error
    return security
