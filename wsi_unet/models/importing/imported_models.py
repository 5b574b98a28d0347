"""Loading models, checkpoints and programs; imported models are kept in the user's cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

from wsi_unet._version import __version__
from wsi_unet.errors import ModelError, OutputError
from wsi_unet.models.importing.checkpoint_file import is_checkpoint
from wsi_unet.models.importing.checkpoints import import_model
from wsi_unet.models.importing.imported_spec import model_name
from wsi_unet.models.model import Model, load_model, read_spec
from wsi_unet.models.paths import AnyPath, parse_path
from wsi_unet.models.program_file import open_program
from wsi_unet.regular_files import open_regular
from wsi_unet.user_folders import find_cache_folder


def load_or_import_model(name_or_path: AnyPath, *, trust: bool = False) -> Model:
    """Load a model, or import a checkpoint or program that needs no hints.

    An imported model is kept in the user's cache (`cache_folder`), under the SHA-256 of its file,
    so that it is made once and workers find it.

    Args:
        name_or_path: a bundled model's name, or the path of a model, checkpoint or program.
        trust: whether it may be a program that can run code.

    Raises:
        ModelError: as `load_model`, `import_checkpoint` and `import_program`.
        OptionError: a hint is needed; `import_model` takes it.
    """
    path = parse_path(name_or_path)
    program = open_program(path)
    if program is not None:
        program.check_trust(trust=trust)
    elif not is_checkpoint(path):
        return load_model(name_or_path, trust=trust)
    kept = _cached_path(path)
    return _load_cached(kept, trust=trust) or _import_into(kept, path, trust=trust)


def check_model_exists(name_or_path: AnyPath) -> None:
    """Check that there is something for `load_or_import_model` to load, without loading it.

    Raises:
        ModelError: there is neither a model with a valid spec, nor a checkpoint or program.
    """
    path = parse_path(name_or_path)
    if open_program(path) is None and not is_checkpoint(path):
        read_spec(name_or_path)


def cache_folder() -> Path:
    """Return the folder in the user's cache of the models that this version imported.

    Raises:
        OutputError: the user has no home folder.
    """
    try:
        return find_cache_folder() / "models" / __version__
    except RuntimeError as error:
        raise OutputError(
            f"can't keep the imported model in the cache ({error}); set WSI_UNET_CACHE to a folder"
        ) from error


def _cached_path(source: Path) -> Path:
    """Return where the model that is made from a file is kept.

    Raises:
        ModelError: the file can't be read.
        OutputError: there is no cache.
    """
    try:
        with open_regular(source) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"can't read {source}: {error.strerror}") from error
    return cache_folder() / digest / model_name(source)


def _load_cached(kept: Path, *, trust: bool) -> Model | None:
    """Return the model that is kept there; None if there is none, or a damaged one."""
    try:
        return load_model(kept, trust=trust)
    except ModelError:
        return None


def _import_into(kept: Path, source: Path, *, trust: bool) -> Model:
    try:
        return import_model(source, kept, trust=trust, overwrite=True)
    except OutputError as error:
        made_meanwhile = _load_cached(kept, trust=trust)
        if made_meanwhile is None:
            raise OutputError(
                f"can't keep the imported model in the cache ({error}); "
                "set WSI_UNET_CACHE to another folder, or use wsi-unet model import"
            ) from error
        return made_meanwhile
