"""The errors of obstore as those of a file system: one line that says what to do."""

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
    """Return obstore, for use by this process.

    Raises:
        OSError: it isn't installed, or this process was forked from one that had used it: its
            threads are gone, so waiting for them would never end.
    """
    try:
        import obstore
    except ImportError as error:
        raise OSError(errno.ENOPKG, "s3:// needs obstore; pip install 'wsi-unet[s3]'") from error
    if _first_process() != os.getpid():
        raise OSError(
            errno.ENOTSUP,
            "a forked process can't use buckets; start processes by spawn or forkserver",
        )
    return obstore


@cache
def _first_process() -> int:
    """Return the id of the process that used obstore first: this one, or one it was forked from."""
    return os.getpid()


def is_key_missing(error: FileNotFoundError) -> bool:
    """Return whether a key is missing, rather than its bucket."""
    return _find_code(str(error)) != "NoSuchBucket"


@contextmanager
def os_errors(bucket: str) -> Iterator[None]:
    """Raise obstore's errors inside as an OSError whose `strerror` says what to do.

    Args:
        bucket: name of the bucket that is asked.
    """
    exceptions = import_obstore().exceptions
    try:
        yield
    except exceptions.PreconditionError as error:
        raise OSError(errno.ESTALE, "it was changed while it was read; start again") from error
    except (exceptions.BaseError, FileNotFoundError) as error:
        raise explain_failure(str(error), bucket) from error


def explain_failure(message: str, bucket: str) -> OSError:
    """Return the OSError for a failure of obstore.

    Args:
        message: obstore's message.
        bucket: name of the bucket that was asked.
    """
    code, status = _find_code(message), _find_status(message)
    if any(server in message for server in _METADATA_SERVERS):
        return OSError(errno.EACCES, NO_CREDENTIALS)
    if code == "NoSuchBucket":
        return OSError(
            errno.ENOENT,
            f"there is no bucket {bucket!r} at {_find_server(message)}; check the URL and "
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
            f"access is denied ({code or status}), as it is to missing keys where listing isn't "
            f"allowed; check the URL, {KEYS}, and what they may do",
        )
    if status == 416 or "non-partial response" in message:
        return OSError(errno.ERANGE, "it has no such bytes; is it complete?")
    if status == 404:
        return OSError(errno.ENOENT, "it doesn't exist; check the URL")
    return _explain_passing(message, code or status)


def _explain_passing(message: str, answer: str | int | None) -> OSError:
    """Return the OSError for a failure that may pass, after more than one try."""
    server = _find_server(message)
    if answer is not None:
        return OSError(
            errno.EIO,
            f"{server} answers {answer}{_describe_tries(message)}; try again later",
        )
    if re.search(r"kind: (Timeout|Interrupted)\b|TimedOut|operation timed out", message):
        return OSError(
            errno.ETIMEDOUT,
            f"{server} doesn't answer in time{_describe_tries(message)}; check the network and "
            "AWS_ENDPOINT_URL, or try again later",
        )
    if "kind: Connect" in message or "tcp connect error" in message:
        reason = "no such host" if "dns error" in message else _find_reason(message)
        return OSError(
            errno.ECONNREFUSED,
            f"{server} can't be reached ({reason}){_describe_tries(message)}; check "
            "AWS_ENDPOINT_URL and the network",
        )
    first = message.partition("\n")[0]
    return OSError(errno.EIO, f"{first}; try again later")


def _find_code(message: str) -> str | None:
    match = re.search(r"<Code>(\w+)</Code>", message)
    return match[1] if match else None


def _find_status(message: str) -> int | None:
    match = re.search(r"status code: (\d{3})", message)
    return int(match[1]) if match else None


def _find_server(message: str) -> str:
    match = re.search(r"https?://[^/\s]+", message)
    return match[0] if match else "the server"


def _describe_tries(message: str) -> str:
    match = re.search(r"after (\d+) retries", message)
    return f", after {int(match[1]) + 1} tries" if match else ""


def _find_reason(message: str) -> str:
    """Return the system's reason in a message that holds 'message: "Connection refused"'."""
    match = re.search(r'message: "([^"]+)"', message)
    return match[1] if match else "the connection fails"
