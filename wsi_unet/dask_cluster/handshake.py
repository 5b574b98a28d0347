"""A first word with a scheduler, so that what is wrong can be said in one line.

Dask's own client tries again and again, waits for ever for something that isn't a scheduler, and
says little about why TLS failed.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time

from distributed import Security
from distributed.comm.addressing import parse_address, parse_host_port

from wsi_unet import logs
from wsi_unet.errors import OptionError

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer, at first and after the connection was lost."""


def check_handshake(address: str, security: Security | None) -> None:
    """Connect to a tcp:// or tls:// address once, and wait for the scheduler's first byte.

    Warns if what is sent there can be read on the way.

    Raises:
        OptionError: if there is no such host, nobody answers, or not as a scheduler would.
    """
    protocol, location = parse_address(address)
    host, port = parse_host_port(location)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:  # the latter: a label empty or too long
        raise OptionError(f"unknown host {host!r} in the scheduler's address {address}") from error
    with _connection(address, host, port) as plain:
        if protocol == "tls":
            _greet_encrypted(address, plain, security)
        else:
            _greet(address, plain)
    local = all(ipaddress.ip_address(end[0]).is_loopback for *_, end in found)
    if protocol == "tcp" and not local:
        logs.warn(
            f"the connection to {address} isn't encrypted, and whoever reaches that port can run "
            "programs on the cluster; use TLS (--tls-ca, --tls-cert, --tls-key) outside a network "
            "you trust"
        )


def _connection(address: str, host: str, port: int) -> socket.socket:
    """Return a connection; the scheduler may still be starting.

    Raises:
        OptionError: if there is none in time.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return socket.create_connection((host, port), timeout=CONNECT_SECONDS)
        except OSError as error:
            if time.monotonic() > deadline:
                raise OptionError(
                    f"no Dask scheduler answers at {address} ({error.strerror or 'timed out'}); "
                    "start one with `dask scheduler` or check the address"
                ) from error
        time.sleep(0.1)


def _greet(address: str, connection: socket.socket) -> None:
    """Wait for a scheduler's first word.

    Raises:
        OptionError: if there is none.
    """
    try:
        said = connection.recv(1)
    except TimeoutError as error:
        raise OptionError(
            f"something listens at {address} but doesn't answer like a plain Dask scheduler; if "
            "it wants TLS, use its tls:// address with --tls-ca, --tls-cert and --tls-key"
        ) from error
    except OSError:
        said = b""
    if not said:
        raise OptionError(f"{address} closed the connection; is it a Dask scheduler?")


def _greet_encrypted(address: str, plain: socket.socket, security: Security | None) -> None:
    """Make sure that both sides accept each other's certificates.

    Raises:
        OptionError: if one doesn't, or the other side doesn't speak TLS.
    """
    if security is None:  # Dask's configuration names a program that finds the certificates
        return
    context: ssl.SSLContext = security.get_connection_args("client")["ssl_context"]
    try:
        connection = context.wrap_socket(plain)
    except ssl.SSLCertVerificationError as error:
        raise OptionError(
            f"the certificate of the scheduler at {address} isn't valid here "
            f"({error.verify_message}); give the CA that signed it with --tls-ca"
        ) from error
    except OSError as error:
        raise OptionError(
            f"the scheduler at {address} doesn't speak TLS; is it a tcp:// one?"
        ) from error
    with connection:
        try:
            said = connection.recv(1)
        except OSError:
            said = b""
    if not said:
        raise OptionError(
            f"the scheduler at {address} refused this client's certificate; give one that its CA "
            "has signed with --tls-cert and --tls-key"
        )
