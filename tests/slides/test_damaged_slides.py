"""Damaged and forged slides: every one is read, or refused by a SlideError, soon and cheaply."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import threading
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import tiffslide
import zarr
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.errors import OptionError, SlideError
from wsi_unet.geometry import Box
from wsi_unet.image_files import max_pixels
from wsi_unet.slides import open_slide, opening
from wsi_unet.slides.levels import Level, check_levels
from wsi_unet.slides.readers import tiff_directories
from wsi_unet.slides.readers.tiff import TiffReader
from wsi_unet.slides.slide import Reader, Slide
from wsi_unet.slides.window_memory import LARGE_TILE, decoding_bytes

Pixels = NDArray[np.uint8]


def refused(path: Path, match: str, reader: str = "auto") -> SlideError:
    with pytest.raises(SlideError, match=match) as caught:
        open_slide(path, reader)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return caught.value


class FailingReader(Reader):
    """A reader whose library raises an error from everything."""

    name, vendor, compression, mpp = "failing", None, None, None
    levels = (Level((9, 9), (1.0, 1.0), (9, 9)),)

    def __init__(self, error: BaseException) -> None:
        self.properties: dict[str, str] = {}
        self.error = error

    def read(self, level: int, box: Box) -> Pixels:
        raise self.error

    def fingerprint(self) -> str:
        raise self.error

    def close(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RecursionError("deep"), StopIteration(), OverflowError("a\nb"), KeyError("x")],
)
def test_whatever_a_library_raises_becomes_ours(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = Slide("memory", FailingReader(error))
    for call in (lambda: slide.read(0, Box(0, 0, 1, 1)), slide.fingerprint, slide.close):
        with pytest.raises(SlideError, match="memory: ") as caught:
            call()
        assert caught.value.__cause__ is error
        assert "\n" not in str(caught.value)

    def broken(self: object, source: object) -> None:
        raise error

    (tmp_path / "a.bmp").write_bytes(b"BM" + bytes(99))
    monkeypatch.setattr("wsi_unet.slides.readers.image.ImageReader.__init__", broken)
    assert refused(tmp_path / "a.bmp", "the image reader can't open it").__cause__ is error


def test_an_interrupt_stays_one() -> None:
    slide = Slide("memory", FailingReader(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        slide.read(0, Box(0, 0, 1, 1))


@pytest.mark.parametrize(
    ("levels", "match"),
    [
        ([], "no level"),
        ([((0, 9), (9, 9))], "level 0 has 9 x 0 px"),
        ([((-56, 9), (9, 9))], "level 0 has 9 x -56 px"),
        ([((9, 9), (9, 0))], "in pieces of 0 x 9 px"),
        ([((9, 9), (9, 9)), ((5, 10), (9, 9))], "level 1, 10 x 5 px, is larger than the finer one"),
        ([((2**31, 2**31), (2**30, 2**30))], "are decoded at once, more than 400,000,000"),
        ([((2**31, 2**31), (512, 512))], "px are more than 1,000,000,000,000"),
    ],
)
def test_levels_are_checked_whatever_the_reader(levels: list[Any], match: str) -> None:
    with pytest.raises(SlideError, match=match):
        check_levels([Level(shape, (1.0, 1.0), tile) for shape, tile in levels])


def test_large_slides_are_no_forgeries() -> None:
    check_levels([Level((400_000, 300_000), (1.0, 1.0)), Level((100_000, 75_000), (4.0, 4.0))])


def test_the_bound_is_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_UNET_MAX_PIXELS", "99")
    assert max_pixels() == 99
    monkeypatch.setenv("WSI_UNET_MAX_PIXELS", "lots")
    with pytest.raises(OptionError, match="WSI_UNET_MAX_PIXELS must be a number of pixels"):
        max_pixels()


@pytest.mark.parametrize(("most", "kind"), [("9", SlideError), ("lots", OptionError)])
def test_whatever_cannot_be_a_slide_is_closed(
    monkeypatch: pytest.MonkeyPatch, most: str, kind: type[Exception]
) -> None:
    reader = FailingReader(ValueError())
    closed: list[Reader] = []
    monkeypatch.setenv("WSI_UNET_MAX_PIXELS", most)
    monkeypatch.setattr(reader, "close", lambda: closed.append(reader))
    with pytest.raises(kind):
        Slide("memory", reader)
    assert closed == [reader]


def directory_pointers(path: Path) -> tuple[str, list[tuple[int, int]]]:
    """Return the format of offsets; offset and place of the following one, per directory."""
    with tifffile.TiffFile(path) as opened_file:
        file: Any = opened_file
        layout = file.byteorder + file.tiff.offsetformat[-1]
        size = file.tiff.tagnosize
        return layout, [
            (page.offset, page.offset + size + len(page.tags) * file.tiff.tagsize)
            for page in file.pages
        ]


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_directories_in_a_circle_are_refused(
    tmp_path: Path, random_rgb: Pixels, bigtiff: bool, byteorder: Any, target: int
) -> None:
    path = tmp_path / "circle.tif"
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as writer:
        for side in (90, 45, 22):
            writer.write(random_rgb[:side, :side], metadata=None)
    layout, pointers = directory_pointers(path)
    with path.open("r+b") as file:
        file.seek(pointers[2][1])
        file.write(struct.pack(layout, pointers[target][0]))
    refused(path, "runs in a circle")


def test_an_inner_directory_that_is_an_outer_one_is_refused(
    tmp_path: Path, random_rgb: Pixels
) -> None:
    path = tmp_path / "inner.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(random_rgb, subifds=1)
        writer.write(random_rgb[::2, ::2], subfiletype=1)
    with tifffile.TiffFile(path) as opened_file:
        file: Any = opened_file
        place, own = file.pages[0].tags[330].valueoffset, file.pages[0].offset
    with path.open("r+b") as file_to_spoil:
        file_to_spoil.seek(place)
        file_to_spoil.write(struct.pack("<I", own))
    refused(path, "runs in a circle")


def test_too_many_images_are_refused(
    tmp_path: Path, random_rgb: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_directories, "MAX_DIRECTORIES", 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for side in (90, 45, 22, 11):
            writer.write(random_rgb[:side, :side], metadata=None)
    refused(tmp_path / "a.tif", "more than 3 images")


@pytest.mark.parametrize("suffix", [".tif", ".zarr", ".png", ".svs", ".mrxs", ".dcm"])
def test_only_regular_files_are_opened(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"a{suffix}")
    refused(tmp_path / f"a{suffix}", "is a named pipe, not a file")
    (tmp_path / f"b{suffix}").symlink_to("/dev/zero")
    refused(tmp_path / f"b{suffix}", "is a device, not a file")


def test_sockets_and_pipes_in_a_zarr_are_no_files(
    tmp_path: Path, random_rgb: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a.tif")
        refused(tmp_path / "a.tif", "is a socket, not a file")
    (tmp_path / "a.zarr").mkdir()
    os.mkfifo(tmp_path / "a.zarr" / "zarr.json")
    refused(tmp_path / "a.zarr", "is a named pipe, not a file")
    array = zarr.create_array(
        tmp_path / "b.zarr", shape=(90, 70, 3), dtype="u1", chunks=(90, 70, 3)
    )
    array[:] = random_rgb
    chunk = tmp_path / "b.zarr" / "c" / "0" / "0" / "0"
    chunk.unlink()
    os.mkfifo(chunk)
    with open_slide(tmp_path / "b.zarr") as slide, pytest.raises(SlideError, match="isn't a file"):
        slide.fingerprint()


def test_a_library_that_never_returns_is_left_behind(
    tmp_path: Path, random_rgb: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random_rgb)
    go_on, closed = threading.Event(), threading.Event()
    make = tiffslide.TiffSlide

    def stuck(*arguments: Any, **options: Any) -> Any:
        go_on.wait()
        return make(*arguments, **options)

    monkeypatch.setattr("wsi_unet.slides.readers.tiff.TiffSlide", stuck)
    monkeypatch.setattr(TiffReader, "close", lambda self: closed.set())
    monkeypatch.setattr(opening, "OPENING_SECONDS", 0.01)
    refused(path, "not open after 0 s")
    monkeypatch.setattr(opening, "OPENING_SECONDS", 60)
    Image.fromarray(random_rgb).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png") as other:  # others needn't wait for it
        assert other.shape == (90, 70)
    go_on.set()
    assert closed.wait(60)  # what comes too late is closed


def test_few_bytes_that_claim_many_pixels_are_refused(tmp_path: Path, random_rgb: Pixels) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random_rgb, tile=(32, 32))
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as opened_file:
        file: Any = opened_file
        places = {code: file.pages[0].tags[code].offset + 8 for code in (256, 257, 322, 323)}
    for sizes, match in (
        ({256: 2**31 - 1, 257: 2**31 - 1}, "says where only 9 of them are"),
        ({256: 2**31 - 1, 257: 2**31 - 1, 322: 2**30, 323: 2**30}, "are decoded at once"),
        ({257: 2**32 - 1, 323: 2**32 - 16}, "are decoded at once"),
    ):
        forged = data.copy()
        for code, size in sizes.items():
            forged[places[code] : places[code] + 4] = struct.pack("<I", size)
        path.write_bytes(forged)
        refused(path, match)
    Image.new("RGBA", (2000, 2000)).save(tmp_path / "a.png")
    png = bytearray((tmp_path / "a.png").read_bytes())
    png[16:24] = struct.pack(">II", 20_000, 20_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    (tmp_path / "a.png").write_bytes(png)
    refused(tmp_path / "a.png", "bytes can't hold them")


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_streams_larger_than_their_tile_are_refused(
    tmp_path: Path, random_rgb: Pixels, compression: str
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random_rgb, tile=(48, 48), compression=compression, photometric="rgb")
    data = path.read_bytes()
    small, large = (
        (struct.pack(">HH", 48, 48), struct.pack(">HH", 65_000, 65_000))
        if compression == "jpeg"
        else (struct.pack(">II", 48, 48), struct.pack(">II", 65_000, 65_000))
    )
    assert small in data
    path.write_bytes(data.replace(small, large))
    with open_slide(path) as slide, pytest.raises(SlideError, match="has 65000 x 65000 px"):
        slide.read(0, Box(0, 0, 90, 70))


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_chunks_too_large_to_decode_are_refused(tmp_path: Path, version: Any) -> None:
    for name, shape, chunks, match in (
        ("wide", (60_000, 60_000, 3), (50_000, 50_000, 3), "50000 x 50000 px are decoded at once"),
        ("deep", (1, 90, 70), (10**9, 90, 70), "chunks .* are far larger than its shape"),
        ("huge", (2**31, 2**31), (512, 512), "px are more than 1,000,000,000,000"),
    ):
        zarr.create_array(
            tmp_path / name, shape=shape, dtype="u1", chunks=chunks, zarr_format=version
        )
        refused(tmp_path / name, match)


def test_deep_documents_are_refused(tmp_path: Path, random_rgb: Pixels) -> None:
    folder = tmp_path / "deep.zarr"
    folder.mkdir()
    (folder / "zarr.json").write_text('{"attributes":' * 9**5 + "{}" + "}" * 9**5)
    refused(folder, "recursion")
    xml = '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">' + "<a>" * 9**5
    tifffile.imwrite(tmp_path / "scn.tif", random_rgb, description=xml, metadata=None)
    with suppress(SlideError):  # read, or refused
        open_slide(tmp_path / "scn.tif").close()


def test_large_uncompressed_strips_are_read_in_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one_strip.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 700, 3), np.uint8)
    tifffile.imwrite(path, pixels)
    lengths = []
    pread = os.pread

    def noted(file: int, length: int, offset: int) -> bytes:
        lengths.append(length)
        return pread(file, length, offset)

    monkeypatch.setattr(os, "pread", noted)
    with open_slide(path) as slide:
        lengths.clear()
        assert (slide.read(0, Box(1400, 5, 1490, 690)) == pixels[1400:1490, 5:690]).all()
        assert sum(lengths) < pixels.nbytes * 0.7
        assert (slide.read(0, Box(0, 0, 3000, 700)) == pixels).all()


def test_large_chunks_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2300, 2400, 3), np.uint8)
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=pixels.shape, dtype="u1", chunks=(2100, 2200, 3)
    )
    array[:] = pixels
    with open_slide(tmp_path / "a.zarr") as slide:
        assert slide.levels[0].tile[0] * slide.levels[0].tile[1] >= LARGE_TILE
        assert (slide.read(0, Box(2000, 2100, 2300, 2390)) == pixels[2000:, 2100:2390]).all()


def test_decoding_large_tiles_is_counted() -> None:
    assert decoding_bytes((512, 512)) == 0
    assert decoding_bytes((13_300, 13_300)) == 8 * 13_300**2


SPOILT = 150


def test_spoilt_slides_are_read_or_refused(tmp_path: Path, random_rgb: Pixels) -> None:
    """Bytes at random places of small slides are replaced; nothing but a SlideError comes out."""
    generator = random.Random(7)
    tifffile.imwrite(tmp_path / "a.tif", random_rgb, tile=(32, 32), compression="jpeg")
    tifffile.imwrite(tmp_path / "b.ome.tif", random_rgb, tile=(32, 32), compression="lzw")
    Image.fromarray(random_rgb).save(tmp_path / "c.png")
    array = zarr.create_array(tmp_path / "d", shape=(90, 70, 3), dtype="u1", chunks=(32, 32, 3))
    array[:] = random_rgb
    files = [tmp_path / name for name in ("a.tif", "b.ome.tif", "c.png", "d/zarr.json")]
    whole = {file: file.read_bytes() for file in files}
    opened = 0
    for _ in range(SPOILT):
        file = generator.choice(files)
        data = bytearray(whole[file])
        for _ in range(generator.choice((1, 2, 4))):
            start = generator.randrange(len(data) if generator.random() < 0.5 else 400)
            data[start : start + 4] = generator.randbytes(generator.randrange(5))
        file.write_bytes(data)
        with (
            suppress(SlideError),
            open_slide(file.parent if file.parent.name == "d" else file) as slide,
        ):
            slide.read(0, Box(0, 0, *(min(side, 90) for side in slide.shape)))
            slide.fingerprint()
            opened += 1
        file.write_bytes(whole[file])
    assert 0 < opened < SPOILT


def test_numbers_in_a_zarr_that_are_something_else_are_refused(
    tmp_path: Path, random_rgb: Pixels
) -> None:
    array = zarr.create_array(tmp_path / "a", shape=(90, 70, 3), dtype="u1", chunks=(32, 32, 3))
    array[:] = random_rgb
    document = json.loads((tmp_path / "a" / "zarr.json").read_text())
    grid = document["chunk_grid"]["configuration"]
    for shape, chunks in (([90, 70, 3], [32, 0, 3]), (7, [32, 32, 3]), ([90, 1.5, 3], [32, 32, 3])):
        document["shape"], grid["chunk_shape"] = shape, chunks
        (tmp_path / "a" / "zarr.json").write_text(json.dumps(document))
        refused(tmp_path / "a", "a: ")
