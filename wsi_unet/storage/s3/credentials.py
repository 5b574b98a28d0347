"""Where the bucket's server is and who asks: the environment that AWS's own tools use."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wsi_unet.storage.s3.errors import NO_CREDENTIALS

if TYPE_CHECKING:
    from obstore.store import S3Config

ELSEWHERE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Variables that name credentials, so that ~/.aws isn't asked for any."""

FILES = (
    ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ("AWS_CONFIG_FILE", "~/.aws/config"),
)


@dataclass(frozen=True)
class Access:
    """What the environment says of AWS; two that are equal make the same connection.

    Attributes:
        variables: names and values of all variables that begin with "AWS_".
    """

    variables: frozenset[tuple[str, str]] = field(repr=False)

    def get(self, *names: str) -> str | None:
        """Return the value of the first variable that is set and not empty."""
        found = dict(self.variables)
        return next((found[name] for name in names if found.get(name)), None)

    @property
    def anonymous(self) -> bool:
        """Whether requests aren't signed, as public buckets allow."""
        return (self.get("AWS_SKIP_SIGNATURE") or "").lower() in ("1", "true", "yes", "on")

    def connection(self) -> tuple[S3Config, Callable[[], Any] | None]:
        """Return what an obstore `S3Store` needs besides the bucket: settings and credentials.

        obstore itself reads the environment too; here is what it doesn't know.

        Raises:
            OSError: the credentials are in files that can't be read.
        """
        config: S3Config = {}
        session = None if self.anonymous else self._session()
        stated = {} if session is None else session.get_scoped_config()
        endpoint = self.get("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
        endpoint = endpoint or stated.get("endpoint_url")
        if endpoint:
            config["endpoint"] = endpoint
        region = self.get("AWS_REGION", "AWS_DEFAULT_REGION") or stated.get("region")
        if region:
            config["region"] = region
        credentials = None if session is None else session.get_credentials()
        if credentials is not None:
            return config, _provider(credentials)
        if not self.anonymous and not self.get(*ELSEWHERE) and not self._on_amazon():
            raise OSError(errno.EACCES, NO_CREDENTIALS)
        return config, None

    def _on_amazon(self) -> bool:
        """Whether there may be a server that gives this machine credentials; quick to tell."""
        if (self.get("AWS_EC2_METADATA_DISABLED") or "").lower() == "true":
            return False
        server = urlsplit(self.get("AWS_METADATA_ENDPOINT") or "http://169.254.169.254")
        try:
            with socket.create_connection((server.hostname or "", server.port or 80), timeout=1):
                return True
        except OSError:
            return False

    def _session(self) -> Any:
        """Return botocore's view of ~/.aws where that is what holds the credentials, or None."""
        if self.get(*ELSEWHERE):
            return None
        files = [Path(self.get(name) or usual).expanduser() for name, usual in FILES]
        if self.get("AWS_PROFILE") is None and not any(file.is_file() for file in files):
            return None
        try:
            import botocore.exceptions
            import botocore.session
        except ImportError as error:
            raise OSError(
                errno.EACCES,
                "reading credentials from ~/.aws needs botocore; pip install botocore, or set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ) from error
        try:
            session = botocore.session.Session()
            session.get_scoped_config()
        except botocore.exceptions.BotoCoreError as error:
            raise OSError(errno.EACCES, f"~/.aws can't be used: {error}; correct it") from error
        return session


def find_access() -> Access:
    """Return what the environment says now."""
    return Access(frozenset(item for item in os.environ.items() if item[0].startswith("AWS_")))


def _provider(credentials: Any) -> Callable[[], Any]:
    """Return a function that obstore asks for credentials whenever they run out."""
    from datetime import UTC, datetime, timedelta

    def provide() -> dict[str, Any]:
        found = credentials.get_frozen_credentials()
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": datetime.now(UTC) + timedelta(minutes=10),
        }

    return provide
