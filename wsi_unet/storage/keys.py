"""The keys of what lies beside the pixels and their metadata."""

from __future__ import annotations

BOOKKEEPING = ".wsi_unet"
"""Folder of the progress, the lock and temporary files."""

LOCK_NAME = "lock.json"
LOCK_KEY = f"{BOOKKEEPING}/{LOCK_NAME}"
"""Key of the lock, which says who is writing; see `wsi_unet.storage.locking.lock`."""
