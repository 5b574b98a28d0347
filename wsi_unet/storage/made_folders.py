"""Removing the folders that were made for an output's lock, if nothing else was written there.

A lock may be all that a refused or interrupted run writes. How many folders were missing before is
noted beside the temporary files, so that a run that finds the lock of a killed one can remove the
folders too.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

NOTE_NAME = "made"
"""Name of the file that says how many folders, from the output's upwards, were made."""


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
    if made > _read_count(temporaries / NOTE_NAME):
        (temporaries / NOTE_NAME).write_text(str(made))


def remove_unused_folders(root: Path, temporaries: Path, made: int | None = None) -> None:
    """Remove the bookkeeping folder, and the folders made for it, where they are empty.

    Args:
        root: the output folder.
        temporaries: the folder of temporary files, which is in the bookkeeping folder.
        made: how many folders, from `root` upwards, were missing before; None takes what was noted.
    """
    note = temporaries / NOTE_NAME
    made = _read_count(note) if made is None else made
    with suppress(OSError):
        note.unlink()
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


def _read_count(note: Path) -> int:
    try:
        return max(0, int(note.read_text()))
    except (OSError, ValueError):
        return 0
