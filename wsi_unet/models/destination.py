"""Where a model is written to: what may be replaced there, and what is left if writing fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_unet.errors import ModelError, OutputError
from wsi_unet.models.program_file import PROGRAM_FILES
from wsi_unet.models.stored_network import METADATA_KEY, SPEC_FILE, WEIGHTS_FILE
from wsi_unet.models.weights_file import read_header

MODEL_FILES = frozenset({SPEC_FILE, WEIGHTS_FILE, *PROGRAM_FILES.values()})
"""What a model's folder may hold."""

TRAINING_FOLDER = "training"
"""What a trained model's folder holds besides (see `wsi_unet.training.artifacts.folder`)."""


def check_replaceable(target: Path, *, overwrite: bool, source: Path | None = None) -> None:
    """Refuse to write over anything but a model, and over what the model is made of.

    Args:
        target: where the model is to be.
        overwrite: whether a model there may be replaced.
        source: the file that it is made of.

    Raises:
        OutputError: if there is something that isn't replaced, or the place can't be looked at.
    """
    try:
        if not target.exists():
            return
        if not overwrite:
            raise OutputError(
                f"{target} exists; choose another path, or give --overwrite (overwrite=True)"
            )
        place = target.resolve()
        if source is not None and place in (source.resolve(), *source.resolve().parents):
            raise OutputError(f"{target} holds what is imported: it isn't overwritten")
        if (target / TRAINING_FOLDER).is_dir():
            raise OutputError(
                f"{target} holds the training of a model, too: it isn't overwritten; remove it, or "
                "choose another path"
            )
        if not _is_model(target):
            raise OutputError(f"{target} exists and is not a model: it isn't overwritten")
    except OSError as error:
        raise OutputError(f"can't write {target}: {error.strerror or error}") from error


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Make the target's folder for what is written here; take it away again if that fails.

    Raises:
        OutputError: if something can't be written.
    """
    made: list[Path] = []
    try:
        made += (folder for folder in target.parents if not folder.exists())
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            in_the_way = isinstance(error, FileExistsError)
            reason = "its folder is a file" if in_the_way else error.strerror or error
            raise OutputError(f"can't write {target}: {reason}") from error
        raise


def _is_model(target: Path) -> bool:
    """Tell whether something is a model, or a folder that is still empty."""
    if target.is_dir():
        inside = {path.name for path in target.iterdir()}
        return not inside or (SPEC_FILE in inside and inside <= MODEL_FILES)
    if target.suffix != ".safetensors":
        return False
    try:
        return METADATA_KEY in read_header(target).metadata
    except ModelError:
        return False
