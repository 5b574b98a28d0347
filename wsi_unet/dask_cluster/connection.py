"""Reaching somebody's Dask scheduler: its address, TLS, and one line when that fails."""

from __future__ import annotations

import json
import ssl
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dask
from distributed import Client, Security
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.versions import VersionMismatchWarning

from wsi_unet.dask_cluster.handshake import CONNECT_SECONDS, check_handshake
from wsi_unet.errors import OptionError

WORKERS_SECONDS = 60.0
"""How long to wait for the first worker, which may still be starting."""

_SETTINGS = {"distributed.comm.timeouts.tcp": "20s"}
"""A scheduler whose machine is gone is noticed after so long; then it has `CONNECT_SECONDS`."""

_ENCRYPTED = ("tls", "wss", "ucxx")


@contextmanager
def connect_client(
    scheduler: str,
    *,
    tls_ca: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
) -> Iterator[Client]:
    """Yield a client of a running scheduler that has workers.

    Args:
        scheduler: its address, or the path of the file that it wrote its address to.
        tls_ca: file with the certificate of who signs the cluster's certificates. These three
            stand in for Dask's own settings.
        tls_cert: file with this client's certificate.
        tls_key: file with its key; None if that is in the certificate's file.

    Raises:
        OptionError: if there is no such scheduler, it refuses us, or has no workers.
    """
    given = {
        name: value
        for name, value in (
            ("tls_ca_file", tls_ca),
            ("tls_client_cert", tls_cert),
            ("tls_client_key", tls_key),
        )
        if value is not None
    }
    address = _address(scheduler, encrypted=bool(given))
    security = _security(address, given)
    if address.startswith(("tcp://", "tls://")):
        check_handshake(address, security)
    with dask.config.set(_SETTINGS):
        try:
            with warnings.catch_warnings():
                # Versions are checked in full, and in one line, once there is a connection.
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
            with suppress(TimeoutError):  # a scheduler that hangs doesn't say goodbye
                client.close()


def _wait_for_workers(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKERS_SECONDS)
    except (TimeoutError, OSError) as error:
        raise OptionError(
            f"the scheduler at {address} has no workers; start some with `dask worker`"
        ) from error


def _address(scheduler: str, *, encrypted: bool) -> str:
    """Return the address that is meant, with its protocol.

    Raises:
        OptionError: if it is neither an address nor a file that holds one.
    """
    if "://" not in scheduler and (scheduler.endswith(".json") or "/" in scheduler):
        return _read_address(Path(scheduler))
    default = "tls" if encrypted else dask.config.get("distributed.comm.default-scheme")
    address = scheduler if "://" in scheduler else f"{default}://{scheduler}"
    try:
        parse_host_port(parse_address(address)[1])
    except ValueError as error:
        raise OptionError(
            f"scheduler {scheduler!r} is neither an address like tcp://10.0.0.1:8786 nor the path "
            "of a scheduler's file"
        ) from error
    return address


def _read_address(path: Path) -> str:
    """Return the address that a scheduler wrote; it may still be starting.

    Raises:
        OptionError: if there is none in time.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["address"])
        except FileNotFoundError:
            reason = "isn't there"
        except OSError as error:
            raise OptionError(f"the scheduler's file {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError):
            reason = "doesn't hold an address"
        if time.monotonic() > deadline:
            raise OptionError(
                f"the scheduler's file {path} {reason}; start the scheduler with "
                f"`dask scheduler --scheduler-file {path}`"
            )
        time.sleep(0.1)


def _security(address: str, given: dict[str, str]) -> Security | None:
    """Return the certificates to use; None leaves that to Dask's settings.

    Raises:
        OptionError: if certificates are unusable, missing, or not wanted at this address.
    """
    if not given and dask.config.get("distributed.client.security-loader"):
        return None
    for path in given.values():
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise OptionError(f"the TLS file {path} can't be read: {error.strerror}") from error
    security = Security(**given, require_encryption=True) if given else Security()
    files = security.get_tls_config_for_role("client")
    encrypted = parse_address(address)[0] in _ENCRYPTED
    if not encrypted and security.require_encryption:
        raise OptionError(
            f"the scheduler's address {address} isn't encrypted, but TLS is asked for; use "
            "its tls:// address"
        )
    if encrypted and not (files["ca_file"] and files["cert"]):
        raise OptionError(
            f"{address} needs certificates: give --tls-ca, --tls-cert and --tls-key, or set "
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
