"""The shards we encode, against zarr-python as the oracle, both ways."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Zstd
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from wsi_unet.labels import shards
from wsi_unet.labels.metadata import describe_array
from wsi_unet.labels.shards import ShardRecord, decode_shard, encode_shard


def sparse(shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    """Return noise in some chunks, nothing in others."""
    random = np.random.default_rng(seed)
    data = random.integers(0, 4, shape, np.uint8)
    for y in range(0, shape[-2], 512):
        for x in range(0, shape[-1], 512):
            if random.random() < 0.5:
                data[..., y : y + 512, x : x + 512] = 0
    return data


shapes = st.tuples(st.integers(1, 1100), st.integers(1, 1100)) | st.tuples(
    st.integers(1, 3), st.integers(1, 600), st.integers(1, 600)
)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 99))
def test_zarr_reads_what_we_encode(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], seed: int
) -> None:
    root = tmp_path_factory.mktemp("array")
    data = sparse(shape, seed)
    side = 2048 if max(shape[-2:]) > 1024 else 1024
    encoded = encode_shard(data, side)
    (root / "zarr.json").write_text(json.dumps(describe_array(shape, side)))
    if encoded is not None:
        key = root.joinpath("c", *["0"] * data.ndim)
        key.parent.mkdir(parents=True)
        key.write_bytes(encoded)
    stored = zarr.open_array(root, mode="r")
    assert np.array_equal(np.asarray(stored[...]), data)
    part = (..., slice(shape[-2] // 2, None), slice(None, shape[-1] // 2 + 1))
    assert np.array_equal(np.asarray(stored[part]), data[part])
    assert (encoded is None) == (not data.any())
    if encoded is not None:
        assert np.array_equal(decode_shard(encoded, shape, side), data)


@pytest.mark.parametrize("shape", [(1024, 1024), (900, 700), (2, 700, 1024)])
def test_we_read_what_zarr_encodes_and_our_shards_are_as_small(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    data = sparse(shape, 3)
    (tmp_path / "zarr.json").write_text(json.dumps(describe_array(shape, 1024)))
    zarr.open_array(tmp_path, mode="r+")[...] = data
    theirs = tmp_path.joinpath("c", *["0"] * data.ndim).read_bytes()
    assert np.array_equal(decode_shard(theirs, shape, 1024), data)
    ours = encode_shard(data, 1024)
    assert ours is not None
    assert len(ours) == len(theirs)


def test_the_metadata_is_what_zarr_would_write(tmp_path: Path) -> None:
    zarr.create_array(
        tmp_path,
        shape=(3, 5000, 4000),
        chunks=(3, 512, 512),
        shards=(3, 2048, 2048),
        dtype="uint8",
        fill_value=0,
        compressors=ZstdCodec(level=5, checksum=True),
        dimension_names=["c", "y", "x"],
    )
    written = json.loads((tmp_path / "zarr.json").read_text())
    assert describe_array((3, 5000, 4000), 2048) == written


def test_all_background_is_no_object() -> None:
    assert encode_shard(np.zeros((700, 512), np.uint8), 1024) is None
    record = ShardRecord.from_shard(None)
    assert record.empty
    assert record == ShardRecord(0, None)


def test_the_record_is_the_length_and_the_checksum() -> None:
    record = ShardRecord.from_shard(b"abc")
    assert not record.empty
    assert record.length == 3
    assert record.sha256 is not None
    assert record.sha256.startswith("ba7816bf")


def test_the_same_pixels_give_the_same_bytes() -> None:
    data = sparse((1024, 1024), 1)
    assert encode_shard(data, 1024) == encode_shard(np.asfortranarray(data), 1024)


@pytest.mark.parametrize("kept", [0, 3, 68, 200, -1])
def test_a_truncated_shard_is_noticed(kept: int) -> None:
    encoded = encode_shard(sparse((1024, 1024), 1), 1024)
    assert encoded is not None
    with pytest.raises(ValueError, match="damaged index"):
        decode_shard(encoded[:kept], (1024, 1024), 1024)


def test_a_damaged_chunk_is_noticed() -> None:
    encoded = encode_shard(np.ones((512, 512), np.uint8), 512)
    assert encoded is not None
    with pytest.raises(ValueError, match="damaged chunk 0, 0"):
        decode_shard(b"\0\0\0\0" + encoded[4:], (512, 512), 512)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_flipped_bit_changes_what_is_read(data: st.DataObject) -> None:
    """A few bits of zstd's headers don't matter to the pixels; all others are damage."""
    pixels = sparse((700, 600), 3)
    shard = encode_shard(pixels, 1024)
    assert shard is not None
    position = data.draw(st.integers(0, len(shard) - 1))
    damaged = bytearray(shard)
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = decode_shard(bytes(damaged), pixels.shape, 1024)
    except ValueError:
        return
    assert np.array_equal(found, pixels)


def test_shards_of_earlier_versions_have_no_checksums_and_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = sparse((700, 600), 3)
    with monkeypatch.context() as earlier:
        earlier.setattr(shards, "Zstd", lambda level=5, checksum=False: Zstd(level=level))
        shard = encode_shard(pixels, 1024)
    assert shard is not None
    assert shard != encode_shard(pixels, 1024)
    assert np.array_equal(decode_shard(shard, pixels.shape, 1024), pixels)
