"""Text and identifiers as DICOM wants them."""

from __future__ import annotations

import json
import re
import uuid

from wsi_unet.errors import OptionError
from wsi_unet.objects.table import UUID_NAMESPACE

LONG_STRING = 64
"""Bytes of a value of the representation LO."""

_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_FORBIDDEN = re.compile(r"[\\\x00-\x1f\x7f]")


def cut_text(text: str, most: int = LONG_STRING) -> str:
    """Return text without backslashes and control characters, cut to a number of bytes of UTF-8.

    The standard counts characters, but not all readers do.
    """
    whole = _FORBIDDEN.sub(" ", text).strip().encode()
    return whole[:most].decode(errors="ignore").strip()


def make_uid(*parts: object) -> str:
    """Return the UID that is made of what it identifies: the same for the same parts."""
    name = json.dumps(["dicom", *parts], sort_keys=True)
    return f"2.25.{uuid.uuid5(UUID_NAMESPACE, name).int}"


def check_uid(uid: str, option: str) -> str:
    """Return a UID that was given.

    Raises:
        OptionError: it isn't one.
    """
    if len(uid) > 64 or not _UID.fullmatch(uid):
        raise OptionError(
            f"`{option}` is {uid!r}, which is no DICOM UID: numbers joined by dots, at most 64 "
            "characters",
            option=option,
        )
    return uid


def check_patient_id(text: str) -> str:
    """Return an identifier of a patient that was given.

    Raises:
        OptionError: DICOM can't hold it.
    """
    if not text.strip() or cut_text(text) != text:
        raise OptionError(
            f"`patient_id` is {text!r}; DICOM takes 1 to {LONG_STRING} bytes, none of them a "
            "backslash or control character, without spaces around",
            option="patient_id",
        )
    return text
