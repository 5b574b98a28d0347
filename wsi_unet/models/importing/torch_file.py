"""Checking files that torch.save wrote without loading them: archives, and older pickles."""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from wsi_unet.errors import ModelError
from wsi_unet.models.importing.pickle_scan import Readable, Scan, scan_pickle
from wsi_unet.models.importing.pickled import DamagedPickleError, Place, Storage
from wsi_unet.regular_files import open_regular

LONGEST_PICKLE = 64 * 2**20
"""Bytes of the longest `data.pkl` that is read; it holds no numbers, real ones are some kB."""

_LOCAL_HEADER = 30
"""Bytes of the header of a zip archive's member, without its name and extra field."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_RETRY = "get the file again"

_PROGRAMS = {
    "constants.pkl": "a TorchScript program",
    "archive_format": "a torch.export program",
    "serialized_exported_program.json": "a torch.export program",
    "models/model.json": "a torch.export program",
}
"""Members that only such archives have, in their top folder or below it."""

_OTHER_ARCHIVES = {"model.weights.h5": "a Keras model"}
"""Members of other archives."""


@dataclass(frozen=True)
class TorchFile:
    """What a file holds.

    Attributes:
        value: its content, as in `Scan`.
        places: where the numbers of each storage lie in the file, by the storage's key.
    """

    value: Any
    places: Mapping[str, Place]


def scan_archive(path: Path) -> TorchFile:
    """Check a zip archive that torch.save wrote and return what it holds.

    Raises:
        ModelError: it is something else, is damaged, would run code when loaded, or claims to
            hold more than it does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            folder = _top_folder(path, archive.namelist())
            members = _members(path, archive)
            scan = _scan_member(path, archive, members[f"{folder}data.pkl"])
            order = members.get(f"{folder}byteorder")
            if order is not None and (order.file_size > 8 or archive.read(order) != b"little"):
                raise ModelError(f"{path} was saved in another byte order; save it again here")
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise ModelError(f"{path} is a damaged or cut zip archive ({error}); {_RETRY}") from error
    places = {}
    with open_regular(path) as file:
        for storage in scan.storages.values():
            member = members.get(f"{folder}data/{storage.key}")
            if member is None or member.file_size != storage.bytes:
                held = "nothing" if member is None else f"{member.file_size} bytes"
                raise ModelError(_size_message(path, storage, held))
            places[storage.key] = Place(_find_content(path, file, member), member.CRC)
    return TorchFile(scan.value, places)


def _find_content(path: Path, file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Return where the content of an uncompressed member begins, bytes.

    Raises:
        ModelError: it isn't where the archive says.
    """
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    position = member.header_offset + _LOCAL_HEADER + lengths
    if header[:4] != b"PK\x03\x04" or position + member.file_size > path.stat().st_size:
        raise ModelError(f"{path} is a damaged or cut zip archive ({member.filename}); {_RETRY}")
    return position


def scan_legacy(path: Path) -> TorchFile:
    """Check a file that torch.save wrote before version 1.6: pickles, then the bare numbers.

    Raises:
        ModelError: as `scan_archive`.
    """
    with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        if _scan(path, memory).value != _LEGACY_MAGIC:
            raise ModelError(
                f"{path} is a pickle that torch.save didn't write; save the network's state_dict() "
                "with torch.save or safetensors"
            )
        protocol, system = _scan(path, memory).value, _scan(path, memory).value
        if protocol != _LEGACY_PROTOCOL or not _is_little_endian(system):
            raise ModelError(f"{path} was saved by an unknown version of PyTorch; save it again")
        scan = _scan(path, memory)
        keys = _scan(path, memory).value
        if not _lists_all(keys, scan.storages):
            raise ModelError(f"{path} describes its storages inconsistently; {_RETRY}")
        places = {key: Place(_skip_storage(path, memory, scan.storages[key])) for key in keys}
    return TorchFile(scan.value, places)


def _lists_all(keys: Any, storages: Mapping[str, Storage]) -> bool:
    """Return whether `keys` are those of the storages, each once."""
    return (
        isinstance(keys, list)
        and len(keys) == len(storages)
        and all(isinstance(key, str) for key in keys)
        and set(keys) == set(storages)
    )


def _skip_storage(path: Path, memory: mmap.mmap, storage: Storage) -> int:
    """Check that the numbers of a storage come next, go to what follows, return where they begin.

    Raises:
        ModelError: other numbers come next, or too few.
    """
    count = int.from_bytes(memory.read(8), "little")
    left = memory.size() - memory.tell()
    if count != storage.count or storage.bytes > left:
        raise ModelError(_size_message(path, storage, f"{count} numbers in {left} bytes"))
    position = memory.tell()
    memory.seek(storage.bytes, io.SEEK_CUR)
    return position


def _is_little_endian(system: Any) -> bool:
    return isinstance(system, dict) and system.get("little_endian") is True


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the archive's members by name.

    Raises:
        ModelError: one is compressed, encrypted, there twice or outside the archive, or they
            are larger than the file.
    """
    size, total = path.stat().st_size, 0
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = PurePosixPath(member.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in member.filename:
            raise ModelError(f"{path} has a member {member.filename!r} that leads out of it")
        if member.filename in members:
            raise ModelError(f"{path} has two members {member.filename!r}")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise ModelError(
                f"{path}: {member.filename} is compressed or encrypted, which checkpoints are not; "
                "if it is an archive of checkpoints, unpack it first"
            )
        total += member.file_size
        members[member.filename] = member
    if total > size:
        raise ModelError(f"{path} claims to hold {total} bytes in a file of {size}; {_RETRY}")
    return members


def _top_folder(path: Path, names: Collection[str]) -> str:
    """Return the folder that `data.pkl` lies in, with a slash at the end.

    Raises:
        ModelError: there is none, or the archive isn't a checkpoint.
    """
    below = {name.partition("/")[2] for name in names}
    for name, kind in _PROGRAMS.items():
        if name in names or name in below:
            raise ModelError(
                f"{path} is {kind}, not a checkpoint: it is run as it is, which needs `trust=True`"
            )
    for name, kind in _OTHER_ARCHIVES.items():
        if name in names:
            raise ModelError(f"{path} is {kind}; only PyTorch checkpoints are imported")
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(folders) != 1 or folders[0].count("/") != 1:
        raise ModelError(f"{path} is a zip archive, but not one that torch.save wrote")
    return folders[0]


def _scan_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Scan:
    if member.file_size > LONGEST_PICKLE:
        raise ModelError(
            f"{path}: {member.filename} has {member.file_size} bytes, more than the "
            f"{LONGEST_PICKLE} that the description of a checkpoint may have"
        )
    return _scan(path, io.BytesIO(archive.read(member)))


def _scan(path: Path, file: Readable) -> Scan:
    try:
        return _refuse_code(path, scan_pickle(file))
    except DamagedPickleError as error:
        raise ModelError(f"{path} is damaged, cut short or no checkpoint: {error}") from error


def _refuse_code(path: Path, scan: Scan) -> Scan:
    if not scan.forbidden:
        return scan
    first = ", ".join(scan.forbidden[:3])
    more = f" and {len(scan.forbidden) - 3} more" if len(scan.forbidden) > 3 else ""
    whole = any(name.startswith("torch.nn.modules.") for name in scan.forbidden)
    kind = "is a whole pickled network: it" if whole else "holds more than tensors: it"
    raise ModelError(
        f"{path} {kind} names {first}{more}, and loading it would run code; if you trust it, load "
        "it yourself and save the network's state_dict() alone"
    )


def _size_message(path: Path, storage: Storage, held: str) -> str:
    return (
        f"{path} is damaged or cut short: storage {storage.key} should be {storage.count} "
        f"{storage.dtype} numbers, there is {held}; {_RETRY}"
    )
