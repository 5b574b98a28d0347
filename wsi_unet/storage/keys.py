"""The names of what isn't pixels or their metadata."""

from __future__ import annotations

BOOKKEEPING = ".wsi_unet"
"""Folder of everything that isn't pixels or their metadata."""

LOCK_NAME = "lock.json"
LOCK_KEY = f"{BOOKKEEPING}/{LOCK_NAME}"
"""The object that says who is writing, see `wsi_unet.storage.lock`."""
