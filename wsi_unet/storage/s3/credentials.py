"""The address of the buckets' server and the credentials, from the environment of AWS's tools."""

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

CREDENTIAL_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Variables that name credentials; if one is set, ~/.aws isn't read."""

CREDENTIAL_FILES = (
    ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ("AWS_CONFIG_FILE", "~/.aws/config"),
)
"""Variables that name files with credentials, and the usual files."""


@dataclass(frozen=True)
class Access:
    """The AWS settings of an environment; equal ones make the same connection.

    Attributes:
        variables: names and values of all variables that begin with "AWS_".
    """

    variables: frozenset[tuple[str, str]] = field(repr=False)

    def get(self, *names: str) -> str | None:
        """Return the value of the first variable that is set and not empty."""
        values = dict(self.variables)
        return next((values[name] for name in names if values.get(name)), None)

    @property
    def anonymous(self) -> bool:
        """Whether requests aren't signed, as public buckets allow."""
        return (self.get("AWS_SKIP_SIGNATURE") or "").lower() in ("1", "true", "yes", "on")

    def connection_settings(self) -> tuple[S3Config, Callable[[], Any] | None]:
        """Return the settings and the credential provider for an obstore `S3Store`.

        obstore reads the environment too; these are the settings that it doesn't know.

        Raises:
            OSError: there are no credentials, or they are in files that can't be read.
        """
        config: S3Config = {}
        session = None if self.anonymous else self._session()
        configured = {} if session is None else session.get_scoped_config()
        endpoint = self.get("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
        endpoint = endpoint or configured.get("endpoint_url")
        if endpoint:
            config["endpoint"] = endpoint
        region = self.get("AWS_REGION", "AWS_DEFAULT_REGION") or configured.get("region")
        if region:
            config["region"] = region
        credentials = None if session is None else session.get_credentials()
        if credentials is not None:
            return config, _make_provider(credentials)
        if (
            not self.anonymous
            and not self.get(*CREDENTIAL_VARIABLES)
            and not self._has_metadata_server()
        ):
            raise OSError(errno.EACCES, NO_CREDENTIALS)
        return config, None

    def _has_metadata_server(self) -> bool:
        """Return whether a server gives this machine credentials, as on EC2; takes at most 1 s."""
        if (self.get("AWS_EC2_METADATA_DISABLED") or "").lower() == "true":
            return False
        server = urlsplit(self.get("AWS_METADATA_ENDPOINT") or "http://169.254.169.254")
        try:
            with socket.create_connection((server.hostname or "", server.port or 80), timeout=1):
                return True
        except OSError:
            return False

    def _session(self) -> Any:
        """Return botocore's session if the credentials are in ~/.aws, else None."""
        if self.get(*CREDENTIAL_VARIABLES):
            return None
        files = [Path(self.get(name) or usual).expanduser() for name, usual in CREDENTIAL_FILES]
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


def read_access() -> Access:
    """Return the settings of this process's environment as it is now."""
    return Access(frozenset(item for item in os.environ.items() if item[0].startswith("AWS_")))


def _make_provider(credentials: Any) -> Callable[[], Any]:
    """Return a function that obstore asks for credentials whenever they run out."""
    from datetime import UTC, datetime, timedelta

    def provide() -> dict[str, Any]:
        current = credentials.get_frozen_credentials()
        return {
            "access_key_id": current.access_key,
            "secret_access_key": current.secret_key,
            "token": current.token,
            "expires_at": datetime.now(UTC) + timedelta(minutes=10),
        }

    return provide
