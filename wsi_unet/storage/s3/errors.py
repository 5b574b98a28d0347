"""What obstore raises, as the errors of a file system: one line, and what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

_CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "InvalidClientTokenId",
        "AuthFailure",
    }
)
_REGION = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_METADATA_SERVERS = ("169.254.169.254", "169.254.170.2")

KEYS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN (or AWS_PROFILE)"
NO_CREDENTIALS = f"no credentials found; set {KEYS}, or AWS_SKIP_SIGNATURE=true for a public bucket"


def import_obstore() -> ModuleType:
    """Return obstore, to be used by this process.

    Raises:
        OSError: it isn't installed, or a process that had used it was forked: its threads are
            gone, and whoever waits for them waits for ever.
    """
    try:
        import obstore
    except ImportError as error:
        raise OSError(errno.ENOPKG, "s3:// needs obstore; pip install 'wsi-unet[s3]'") from error
    if _first_process() != os.getpid():
        raise OSError(
            errno.ENOTSUP,
            "a forked process can't read object stores; start processes by spawn or forkserver",
        )
    return obstore


@cache
def _first_process() -> int:
    """Return the process that used obstore first."""
    return os.getpid()


def missing(error: FileNotFoundError) -> bool:
    """Whether an object is missing, rather than its bucket."""
    return _code(str(error)) != "NoSuchBucket"


@contextmanager
def failures(bucket: str) -> Iterator[None]:
    """Turn what obstore raises into an OSError whose `strerror` says what to do.

    Args:
        bucket: the bucket that is asked.
    """
    exceptions = import_obstore().exceptions
    try:
        yield
    except exceptions.PreconditionError as error:
        raise OSError(errno.ESTALE, "it was changed while it was read; start again") from error
    except (exceptions.BaseError, FileNotFoundError) as error:
        raise explain(str(error), bucket) from error


def explain(message: str, bucket: str) -> OSError:
    """Return the error that a failure's message amounts to.

    Args:
        message: what obstore says.
        bucket: the bucket that was asked.
    """
    code, status = _code(message), _status(message)
    if any(server in message for server in _METADATA_SERVERS):
        return OSError(errno.EACCES, NO_CREDENTIALS)
    if code == "NoSuchBucket":
        return OSError(
            errno.ENOENT,
            f"there is no bucket {bucket!r} at {_server(message)}; check the URL and "
            "AWS_ENDPOINT_URL",
        )
    if code in _CREDENTIALS or status == 401:
        return OSError(
            errno.EACCES, f"the credentials are refused ({code or status}); check {KEYS}"
        )
    if code in _REGION or "configured region" in message:
        return OSError(
            errno.EINVAL, f"the bucket {bucket!r} is in another region; set AWS_REGION to it"
        )
    if status == 403:
        return OSError(
            errno.EACCES,
            f"access is denied ({code or status}), as is to missing objects where listing isn't "
            f"allowed; check the URL, {KEYS}, and what they may do",
        )
    if status == 416 or "non-partial response" in message:
        return OSError(errno.ERANGE, "it has no such bytes; is it whole?")
    if status == 404:
        return OSError(errno.ENOENT, "there is no such object; check the URL")
    return _passing(message, code or status)


def _passing(message: str, answer: str | int | None) -> OSError:
    """Return the error for what might be different later, and was tried more than once."""
    server = _server(message)
    if answer is not None:
        return OSError(
            errno.EIO,
            f"{server} answers {answer}{_tries(message)}; try again later",
        )
    if re.search(r"kind: (Timeout|Interrupted)\b|TimedOut|operation timed out", message):
        return OSError(
            errno.ETIMEDOUT,
            f"{server} doesn't answer in time{_tries(message)}; check the network and "
            "AWS_ENDPOINT_URL, or try again later",
        )
    if "kind: Connect" in message or "tcp connect error" in message:
        reason = "no such host" if "dns error" in message else _quoted_reason(message)
        return OSError(
            errno.ECONNREFUSED,
            f"{server} can't be reached ({reason}){_tries(message)}; check AWS_ENDPOINT_URL and "
            "the network",
        )
    first = message.partition("\n")[0]
    return OSError(errno.EIO, f"{first}; try again later")


def _code(message: str) -> str | None:
    found = re.search(r"<Code>(\w+)</Code>", message)
    return found[1] if found else None


def _status(message: str) -> int | None:
    found = re.search(r"status code: (\d{3})", message)
    return int(found[1]) if found else None


def _server(message: str) -> str:
    found = re.search(r"https?://[^/\s]+", message)
    return found[0] if found else "the server"


def _tries(message: str) -> str:
    found = re.search(r"after (\d+) retries", message)
    return f", after {int(found[1]) + 1} tries" if found else ""


def _quoted_reason(message: str) -> str:
    """Return what the system said of a connection: 'message: "Connection refused"'."""
    found = re.search(r'message: "([^"]+)"', message)
    return found[1] if found else "the connection fails"
