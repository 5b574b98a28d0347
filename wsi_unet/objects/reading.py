"""Opening the table of objects as a dataset of pyarrow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from typing_extensions import override

from wsi_unet.errors import OutputError
from wsi_unet.labels.contents import (
    choose_name,
    open_output,
    parse_frame,
    parse_run_name,
    read_label_names,
)
from wsi_unet.locations import Location
from wsi_unet.objects.records import StageFiles
from wsi_unet.objects.source import read_finished_attributes
from wsi_unet.objects.stage import check_current
from wsi_unet.objects.table import make_schema
from wsi_unet.storage.store import ByteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from wsi_unet.labels.shards import ShardRecord

    FindRecord: TypeAlias = Callable[[str], ShardRecord | None]
    """Returns what was recorded of a file by its key; None if nothing was."""


def open_objects(output: str | os.PathLike[str] | Location, label: str | None = None) -> ds.Dataset:
    """Open the objects of a result lazily: one file per block, rows in order of identity in each.

    >>> table = wsi_unet.open_objects("slide.ome.zarr").to_table()            # doctest: +SKIP
    >>> frame = table.to_pandas()                                             # doctest: +SKIP
    >>> geopandas.GeoDataFrame.from_arrow(table)                              # doctest: +SKIP

    Args:
        output: the result: a folder or an s3:// URL.
        label: name of the label group; may be left out if there is only one.

    Raises:
        OutputError: there is no such result or label group, its objects weren't found yet, aren't
            complete, or belong to labels that have changed since.
    """
    store = open_output(output)
    name = choose_name(output, "labels", read_label_names(store), label)
    attributes = read_finished_attributes(store, name)
    provenance = attributes["wsi_unet"]
    files = StageFiles(store, parse_run_name(provenance, name), name)
    record = check_current(store, files, provenance["finished"])
    keys = files.list_parts()
    if len(keys) != record.parts:
        raise OutputError(
            f"{store}: {len(keys)} of {record.parts} parts of the objects of {name!r} are there; "
            "find objects again, which computes what is missing"
        )
    micrometres = parse_frame(attributes).unit is not None
    schema = make_schema(micrometres=micrometres, values=record.values)
    return open_parts(
        store,
        keys,
        schema,
        lambda key: files.find_part_record(key, record.signature),
        "find objects again, which makes it again",
    )


def open_parts(
    store: ByteStore, keys: Sequence[str], schema: pa.Schema, find_record: FindRecord, cure: str
) -> ds.Dataset:
    """Return the Parquet files of a store under some keys as a dataset; none is read yet.

    Reading one that isn't what was written raises an OutputError.

    Args:
        store: the output.
        keys: those of the files.
        schema: their columns.
        find_record: returns what was recorded of a file.
        cure: what makes a damaged one again.
    """
    files = pafs.PyFileSystem(_StoreFiles(store, find_record, cure))
    kind = ds.ParquetFileFormat()
    fragments = [kind.make_fragment(key, files) for key in keys]
    return ds.FileSystemDataset(fragments, schema, kind, files)


class _StoreFiles(pafs.FileSystemHandler):  # type: ignore[misc]
    """The files of a store, for reading by pyarrow: on a disk and in a bucket alike."""

    def __init__(self, store: ByteStore, find_record: FindRecord, cure: str) -> None:
        self._store, self._find_record, self._cure = store, find_record, cure

    @override
    def get_type_name(self) -> str:
        return "wsi-unet"

    @override
    def get_file_info(self, paths: Sequence[str]) -> list[Any]:
        infos = []
        for path in paths:
            size = self._store.size(path)
            kind = pafs.FileType.NotFound if size is None else pafs.FileType.File
            infos.append(pafs.FileInfo(path, kind, size=size))
        return infos

    @override
    def open_input_file(self, path: str) -> Any:
        record = self._find_record(path)
        data = None if record is None else record.read_intact(self._store, path)
        if data is None:
            raise OutputError(
                f"{self._store}: {path!r} is damaged (it isn't what was written); {self._cure}"
            )
        return pa.BufferReader(data)

    @override
    def open_input_stream(self, path: str) -> Any:
        return self.open_input_file(path)

    @override
    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info_selector(self, selector: Any) -> list[Any]:
        raise NotImplementedError

    def create_dir(self, path: str, recursive: bool) -> None:
        raise NotImplementedError

    def delete_dir(self, path: str) -> None:
        raise NotImplementedError

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        raise NotImplementedError

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        raise NotImplementedError

    def move(self, src: str, dest: str) -> None:
        raise NotImplementedError

    def copy_file(self, src: str, dest: str) -> None:
        raise NotImplementedError

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        raise NotImplementedError

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise NotImplementedError
