"""Removing the folders that were made for an output's lock, if nothing else was written there.

A lock may be all that a refused or interrupted run writes. How many folders were missing before is
noted beside the temporary files, so that a run that finds the lock of a killed one can remove the
folders too. The note holds for the folder that it was written in, not for a copy: an output that
somebody hands over must not have folders above it removed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from wsi_unet.storage.no_links import open_file

NOTE_NAME = "made"
"""Name of the file that says how many folders, from the output's upwards, were made."""

MOST_NOTE_BYTES = 64


def count_missing_folders(folder: Path) -> int:
    """Return how many folders have to be made for `folder` to exist, itself included."""
    missing = 0
    for ancestor in (folder, *folder.parents):
        if ancestor.exists():
            break
        missing += 1
    return missing


def note_made_folders(temporaries: Path, made: int) -> None:
    """Remember in the folder of temporary files that `made` folders were missing before.

    Of several processes that make them at once, the first to look has seen the most missing; the
    highest number counts.
    """
    if made > _read_count(temporaries):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(open_file(temporaries / NOTE_NAME, flags), "w") as note:
            note.write(f"{made} {os.lstat(temporaries).st_ino}")


def remove_unused_folders(root: Path, temporaries: Path, made: int | None = None) -> None:
    """Remove the bookkeeping folder, and the folders made for it, where they are empty.

    Args:
        root: the output folder.
        temporaries: the folder of temporary files, which is in the bookkeeping folder.
        made: how many folders, from `root` upwards, were missing before; None takes what was noted.
    """
    made = _read_count(temporaries) if made is None else made
    with suppress(OSError):
        (temporaries / NOTE_NAME).unlink()
    if _has_neighbours(temporaries):
        return
    for folder in [temporaries, temporaries.parent, root, *root.parents][: 2 + made]:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue  # never made, or another process is removing them too
        except OSError:
            break
    with suppress(OSError):  # another process that still writes there may need to know
        note_made_folders(temporaries, made)


def _has_neighbours(temporaries: Path) -> bool:
    try:
        return any(path != temporaries for path in temporaries.parent.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _read_count(temporaries: Path) -> int:
    """Return how many folders were made, as noted in this very folder; 0 without such a note."""
    try:
        with os.fdopen(open_file(temporaries / NOTE_NAME), "rb") as note:
            count, folder = map(int, note.read(MOST_NOTE_BYTES).split())
        known = folder == os.lstat(temporaries).st_ino
    except (OSError, ValueError):
        return 0
    return max(0, count) if known else 0
