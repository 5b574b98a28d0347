"""Checking the path that a model is written to, and cleaning up if writing fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_unet.errors import ModelError, OutputError
from wsi_unet.models.program_file import PROGRAM_FILES
from wsi_unet.models.stored_network import METADATA_KEY, SPEC_FILE, WEIGHTS_FILE
from wsi_unet.models.weights_file import read_header

MODEL_FILES = frozenset({SPEC_FILE, WEIGHTS_FILE, *PROGRAM_FILES.values()})
"""The files that a model's folder may hold."""

TRAINING_FOLDER = "training"
"""Folder that a trained model's folder also holds (see `wsi_unet.training.artifacts.folder`)."""


def check_replaceable(destination: Path, *, overwrite: bool, imported: Path | None = None) -> None:
    """Refuse to write over anything but a model, and over what the model is made from.

    Args:
        destination: where the model is to be written.
        overwrite: whether a model there may be replaced.
        imported: the file that the model is made from, if it is an import.

    Raises:
        OutputError: what is there mustn't be replaced, or can't be looked at.
    """
    try:
        if not destination.exists():
            return
        if not overwrite:
            raise OutputError(
                f"{destination} exists; choose another path, or give `overwrite=True`"
            )
        resolved = destination.resolve()
        if imported is not None and resolved in (imported.resolve(), *imported.resolve().parents):
            raise OutputError(f"{destination} holds the file to import: it isn't overwritten")
        if (destination / TRAINING_FOLDER).is_dir():
            raise OutputError(
                f"{destination} also holds a model's training: it isn't overwritten; remove it, "
                "or choose another path"
            )
        if not _is_model(destination):
            raise OutputError(f"{destination} exists and is not a model: it isn't overwritten")
    except OSError as error:
        raise OutputError(f"can't write {destination}: {error.strerror or error}") from error


@contextmanager
def writing(destination: Path) -> Iterator[None]:
    """Make the folders above the destination; remove those again if what is written here fails.

    Raises:
        OutputError: something can't be written.
    """
    made: list[Path] = []
    try:
        made += (folder for folder in destination.parents if not folder.exists())
        destination.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            in_the_way = isinstance(error, FileExistsError)
            reason = "its folder is a file" if in_the_way else error.strerror or error
            raise OutputError(f"can't write {destination}: {reason}") from error
        raise


def _is_model(path: Path) -> bool:
    """Return whether something is a model, or a folder that is still empty."""
    if path.is_dir():
        inside = {entry.name for entry in path.iterdir()}
        return not inside or (SPEC_FILE in inside and inside <= MODEL_FILES)
    if path.suffix != ".safetensors":
        return False
    try:
        return METADATA_KEY in read_header(path).metadata
    except ModelError:
        return False
