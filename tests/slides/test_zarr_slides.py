from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box
from wsi_unet.slides import PixelSize, open_slide
from wsi_unet.slides.readers import zarr_codecs

Pixels = NDArray[np.uint8]


def plain(path: Path, pixels: NDArray[Any], version: int, names: list[str] | None = None) -> Path:
    if version == 3:
        zarr.create_array(str(path), data=pixels, chunks="auto", dimension_names=names)
    else:
        array = zarr.create_array(str(path), data=pixels, zarr_format=2)
        if names:
            array.attrs["_ARRAY_DIMENSIONS"] = names
    return path


def image(
    path: Path,
    levels: list[NDArray[Any]],
    version: str,
    axes: str = "cyx",
    unit: str | None = "micrometer",
    scale: float = 0.5,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write an OME-Zarr image by hand, as the specification has it."""
    described: list[dict[str, Any]] = []
    for axis in axes:
        space = {"name": axis, "type": "space", **({"unit": unit} if unit else {})}
        described.append({"name": axis, "type": "channel"} if axis == "c" else space)
    datasets = []
    for index, level in enumerate(levels):
        side = [scale * 2**index if axis in "yx" else 1 for axis in axes]
        datasets.append(
            {"path": str(index), "coordinateTransformations": [{"type": "scale", "scale": side}]}
        )
        zarr.create_array(
            str(path / str(index)), data=level, zarr_format=2 if version == "0.4" else 3
        )
    multiscales = [{"axes": described, "datasets": datasets, "name": "a slide"}]
    if version == "0.4":
        multiscales[0]["version"] = "0.4"
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": multiscales, **(more or {})}))
    else:
        ome = {"version": "0.5", "multiscales": multiscales, **(more or {})}
        document = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (path / "zarr.json").write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_plain_arrays_are_slides_in_any_layout(
    tmp_path: Path, random_rgb: Pixels, version: int
) -> None:
    channels_first = np.moveaxis(random_rgb, -1, 0)
    layouts: list[tuple[NDArray[Any], list[str] | None]] = [
        (random_rgb, None),
        (channels_first, None),
        (channels_first[None, :, None], ["t", "c", "z", "y", "x"]),
        (random_rgb[None, None], None),
        (np.swapaxes(random_rgb, 0, 1), ["x", "y", "channel"]),
    ]
    for number, (pixels, names) in enumerate(layouts):
        path = plain(tmp_path / f"{number}.zarr", np.ascontiguousarray(pixels), version, names)
        with open_slide(path) as slide:
            assert (slide.reader, slide.shape, slide.mpp) == ("zarr", (90, 70), None)
            assert (slide.read(0, Box(3, 5, 80, 70)) == random_rgb[3:80, 5:70]).all()
    grey = plain(tmp_path / "grey.zarr", random_rgb[..., 0], version)
    with open_slide(grey) as slide:
        assert (slide.read(0, Box(3, 5, 80, 70)) == random_rgb[3:80, 5:70, :1]).all()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "yxc", "tczyx"])
def test_ome_zarr_images_are_slides(
    tmp_path: Path, random_rgb: Pixels, version: str, axes: str
) -> None:
    def arranged(pixels: Pixels) -> Pixels:
        if axes == "yxc":
            return pixels
        first = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
        return first if axes == "cyx" else first[None, :, None]

    small = random_rgb[::2, ::2]
    path = image(tmp_path / "a.zarr", [arranged(random_rgb), arranged(small)], version, axes)
    with open_slide(path) as slide:
        assert [level.downsample for level in slide.levels] == [(1.0, 1.0), (2.0, 2.0)]
        assert slide.mpp == PixelSize(0.5, 0.5)
        assert slide.properties["ome.version"] == version
        assert (slide.read(0, Box(3, 5, 80, 70)) == random_rgb[3:80, 5:70]).all()
        assert (slide.read(1, Box(1, 2, 45, 30)) == small[1:45, 2:30]).all()


@pytest.mark.parametrize(
    ("unit", "scale", "expected"),
    [
        ("nanometer", 250.0, 0.25),
        ("millimeter", 0.0005, 0.5),
        (None, 0.5, None),
        ("parsec", 1, None),
    ],
)
def test_pixel_sizes_follow_the_unit(
    tmp_path: Path, random_rgb: Pixels, unit: str | None, scale: float, expected: float | None
) -> None:
    path = image(tmp_path / "a.zarr", [random_rgb], "0.5", "yxc", unit, scale)
    with open_slide(path) as slide:
        if expected is None:
            assert slide.mpp is None
        else:
            assert slide.mpp is not None
            assert (slide.mpp.y, slide.mpp.x) == pytest.approx((expected, expected))


def named(*names: str) -> dict[str, Any]:
    """Return channels as converters describe them: red, green and blue whatever they are."""
    colours = ("FF0000", "00FF00", "0000FF", "FFFFFF")
    padded = (*names, "", "", "")[: max(3, len(names))]
    channels = [{"label": n, "color": c} for n, c in zip(padded, colours, strict=False)]
    return {"omero": {"channels": channels}}


@pytest.mark.parametrize("axes", ["cyx", "yxc"])
def test_a_fourth_channel_is_alpha_if_it_is_called_so_or_lies_beside_the_colours(
    tmp_path: Path, random_rgb: Pixels, axes: str
) -> None:
    pixels = np.concatenate([random_rgb, np.full((90, 70, 1), 255, np.uint8)], axis=2)
    pixels[:30, :, 3] = 0
    more = named("Red", "Green", "Blue", "Alpha") if axes == "cyx" else None
    stored = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)) if axes == "cyx" else pixels
    with open_slide(image(tmp_path / "a.zarr", [stored], "0.5", axes, more=more)) as slide:
        shown = slide.read(0, Box(0, 0, 90, 70))
    assert (shown[:30] == 255).all()
    assert (shown[30:] == random_rgb[30:]).all()


@pytest.mark.parametrize("names", [(), ("Channel 0", "Channel 1", "Channel 2"), ("r", "g", "b")])
def test_channels_with_names_of_colours_or_numbers_are_colours(
    tmp_path: Path, random_rgb: Pixels, names: tuple[str, ...]
) -> None:
    first = np.ascontiguousarray(np.moveaxis(random_rgb, -1, 0))
    with open_slide(image(tmp_path / "a.zarr", [first], "0.4", more=named(*names))) as slide:
        assert (slide.read(0, Box(0, 0, 90, 70)) == random_rgb).all()


def test_arrays_that_arent_rgb_planes_are_refused(tmp_path: Path, random_rgb: Pixels) -> None:
    first = np.ascontiguousarray(np.moveaxis(random_rgb, -1, 0))
    four = np.concatenate([first, first[:1]])
    colours = {"omero": {"channels": [{"color": one} for one in ("0000FF", "00FF00", "FF0000")]}}
    zarr.create_group(str(tmp_path / "group.zarr")).create_group("inner")
    cases = [
        (plain(tmp_path / "16.zarr", random_rgb.astype(np.uint16), 3), "uint16"),
        (image(tmp_path / "5c.zarr", [np.concatenate([first, first[:2]])], "0.5"), "5 channels"),
        (image(tmp_path / "stack.zarr", [np.stack([first[0]] * 4)], "0.5", "zyx"), "is a stack"),
        (image(tmp_path / "dapi.zarr", [first], "0.5", more=colours), "fluorescence, not RGB"),
        (image(tmp_path / "cy5.zarr", [first], "0.5", more=named("DAPI", "FITC")), "DAPI, FITC"),
        (image(tmp_path / "4.zarr", [four], "0.4"), "4 channels, and the last isn't called alpha"),
        (image(tmp_path / "rgbx.zarr", [four], "0.5", more=named(*"RGB", "Cy5")), "called Cy5"),
        (plain(tmp_path / "4c.zarr", four, 3), "4 channels, and the last isn't called alpha"),
        (plain(tmp_path / "1d.zarr", random_rgb[0, :, 0], 3), "isn't an image"),
        (tmp_path / "group.zarr", "without an OME-Zarr image"),
    ]
    for path, match in cases:
        with pytest.raises(SlideError, match=match) as caught:
            open_slide(path)
        assert "\n" not in str(caught.value)


def test_damaged_metadata_and_chunks_are_errors(tmp_path: Path, random_rgb: Pixels) -> None:
    path = plain(tmp_path / "a.zarr", random_rgb, 3)
    chunk = next(file for file in (path / "c").rglob("*") if file.is_file())
    chunk.write_bytes(b"torn")
    with open_slide(path) as slide, pytest.raises(SlideError, match="chunk may be damaged"):
        slide.read(0, Box(0, 0, 90, 70))
    chunk.unlink()
    with open_slide(path) as slide:  # where a chunk is absent, nobody scanned
        assert slide.read(0, Box(0, 0, 9, 9)).min() == 255
    (path / "zarr.json").write_text("{torn")
    with pytest.raises(SlideError, match="isn't valid JSON"):
        open_slide(path)


def test_converters_that_nest_the_image_are_understood(tmp_path: Path, random_rgb: Pixels) -> None:
    image(tmp_path / "a.zarr" / "0", [random_rgb], "0.4", "yxc")
    (tmp_path / "a.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / "a.zarr" / ".zattrs").write_text('{"bioformats2raw.layout": 3}')
    with open_slide(tmp_path / "a.zarr") as slide:
        assert slide.shape == (90, 70)


def test_fingerprints_follow_the_image_not_its_place_nor_its_labels(
    tmp_path: Path, random_rgb: Pixels
) -> None:
    path = image(tmp_path / "a.zarr", [random_rgb, random_rgb[::2, ::2]], "0.5", "yxc")
    with open_slide(path) as slide:
        original = slide.fingerprint()
    copy = Path(shutil.copytree(path, tmp_path / "b.zarr"))
    (copy / "labels").mkdir()
    (copy / "labels" / "zarr.json").write_text("{}")
    with open_slide(copy) as slide:
        assert slide.fingerprint() == original
    zarr.open_array(str(copy / "1"), mode="r+")[:20] = 7
    with open_slide(copy) as slide:
        assert slide.fingerprint() != original


def read_corner(path: Path) -> NDArray[np.uint8]:
    with open_slide(path) as slide:
        return slide.read(0, Box(0, 0, 8, 8))


def chunk_file(path: Path) -> Path:
    (found,) = (file for file in (path / "c").rglob("*") if file.is_file())
    return found


def packed_array(path: Path, name: str) -> Path:
    """Write an array of zeros that is one chunk, packed by a codec of Zarr format 2."""
    document = {
        "zarr_format": 2,
        "shape": [64, 64, 3],
        "chunks": [64, 64, 3],
        "dtype": "|u1",
        "compressor": {"id": name},
        "filters": None,
        "fill_value": 0,
        "order": "C",
    }
    path.mkdir()
    (path / ".zarray").write_text(json.dumps(document))
    codec = numcodecs.registry.get_codec({"id": name})
    (path / "0.0.0").write_bytes(codec.encode(np.ones((64, 64, 3), np.uint8)))
    return path


@pytest.mark.parametrize("name", ["blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"])
def test_a_chunk_is_unpacked_to_its_size_at_most(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zarr would unpack all that a chunk claims to be, before it looks at its shape."""
    path = packed_array(tmp_path / "slide.zarr", name)
    assert (read_corner(path) == 1).all()
    codec = numcodecs.registry.get_codec({"id": name})
    (path / "0.0.0").write_bytes(codec.encode(np.ones(1 << 24, np.uint8)))
    sizes = []
    codecs = dict(zarr_codecs._UNPACK)

    def unpack(packed: bytes, out: int) -> bytes | bytearray:
        unpacked = codecs[name](packed, out=out)
        sizes.append(len(unpacked))
        return unpacked

    monkeypatch.setitem(zarr_codecs._UNPACK, name, unpack)
    with pytest.raises(SlideError, match="a chunk may be damaged"):
        read_corner(path)
    assert max(sizes, default=0) <= 2 * 64 * 64 * 3 + 65536


@pytest.mark.parametrize("sharded", [False, True])
def test_a_packed_chunk_of_format_3_is_bounded_too(tmp_path: Path, sharded: bool) -> None:
    path = tmp_path / "slide.zarr"
    zarr.create_array(
        str(path),
        shape=(64, 64, 3),
        dtype="uint8",
        chunks=(32, 32, 3) if sharded else (64, 64, 3),
        shards=(64, 64, 3) if sharded else None,
        compressors=zarr.codecs.ZstdCodec(),
    )[:] = 1
    assert (read_corner(path) == 1).all()
    bomb = bytes(numcodecs.Zstd().encode(bytes(1 << 24)))
    if sharded:
        index = struct.pack("<8Q", *(4 * (0, len(bomb))))
        bomb += index + google_crc32c.value(index).to_bytes(4, "little")
    chunk_file(path).write_bytes(bomb)
    with pytest.raises(SlideError, match="too small"):
        read_corner(path)


def test_a_codec_that_cannot_be_bounded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="its codec 'packbits' isn't one of"):
        open_slide(packed_array(tmp_path / "slide.zarr", "packbits"))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/full")])
def test_a_chunk_that_is_no_file_is_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = packed_array(tmp_path / "slide.zarr", "zstd")
    (path / "0.0.0").unlink()
    make(path / "0.0.0")
    with pytest.raises(SlideError, match="not a file"):
        read_corner(path)


def test_files_larger_than_what_belongs_there_are_not_read(tmp_path: Path) -> None:
    path = packed_array(tmp_path / "slide.zarr", "zstd")
    os.truncate(path / "0.0.0", 1 << 33)
    with pytest.raises(SlideError, match="more bytes than belong there"):
        read_corner(path)
    (path / ".zattrs").touch()
    os.truncate(path / ".zattrs", 1 << 33)
    with pytest.raises(SlideError, match="more than 16 MiB"):
        open_slide(path)


@pytest.mark.parametrize("name", ["../other.zarr/0", "..", "0/../../other.zarr/0", "/tmp", "0\n"])
def test_a_level_outside_of_the_slide_is_refused(tmp_path: Path, name: str) -> None:
    for folder in ("slide.zarr", "other.zarr"):
        image(tmp_path / folder, [np.zeros((3, 64, 64), np.uint8)], "0.5")
    document = tmp_path / "slide.zarr" / "zarr.json"
    described = json.loads(document.read_bytes())
    described["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = name
    document.write_text(json.dumps(described))
    with pytest.raises(SlideError, match="isn't a folder inside it"):
        open_slide(tmp_path / "slide.zarr")


def test_a_shard_without_end_is_refused(tmp_path: Path) -> None:
    """zarr would find that the array has no chunks, and return memory that nobody filled."""
    path = tmp_path / "slide.zarr"
    zarr.create_array(
        str(path), shape=(64, 64, 3), dtype="uint8", chunks=(32, 32, 3), shards=(64, 64, 3)
    )
    document = json.loads((path / "zarr.json").read_bytes())
    document["chunk_grid"]["configuration"]["chunk_shape"][0] = 32 * 10**400
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(SlideError, match="can't be those of an image"):
        open_slide(path)
