"""Who may ask the server, and what browsers may do with its answers."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
"""Names of this machine that a browser on it may use."""

TOKEN_BYTES = 32

OPENSEADRAGON_STYLE = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
"""The one style sheet that OpenSeadragon puts into the page, by its hash."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; "
        f"style-src 'self' {OPENSEADRAGON_STYLE}; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What every answer says: nothing from elsewhere runs or is asked for, and nobody may frame it."""


def is_loopback(host: str) -> bool:
    """Return whether a server that listens at `host` is reached from this machine only.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        host: name or address that the server listens at.
        port: its port.
        token: what every request has to know.
    """

    host: str
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(TOKEN_BYTES), repr=False)

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token; cookies are shared between ports."""
        return f"wsi-unet-{self.port}"

    def knows_token(self, given: str | None) -> bool:
        """Return whether a token is the server's, in a time that tells nothing about it."""
        return given is not None and hmac.compare_digest(
            given.encode("utf-8", "replace"), self.token.encode()
        )

    def knows_host(self, header: str | None) -> bool:
        """Return whether a Host header names this server, which guards against DNS rebinding.

        A page from elsewhere can make a browser send its own name only, and never an address.

        >>> access = Access("127.0.0.1", 8000)
        >>> access.knows_host("localhost:8000"), access.knows_host("evil.example:8000")
        (True, False)
        """
        try:
            named = urlsplit(f"//{header or ''}")
            name, port = named.hostname, named.port
        except ValueError:
            return False
        if name is None or named.username is not None or named.path or named.query:
            return False
        if is_loopback(self.host):
            return name in (*LOOPBACK_NAMES, self.host) and port == self.port
        return name == self.host.lower() or name in LOOPBACK_NAMES or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
