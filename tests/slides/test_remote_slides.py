"""Slides in a bucket have the pixels and properties of slides on the disk."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image
from support.proxy import Proxy, Request, wait_until

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box
from wsi_unet.slides import Slide, open_slide
from wsi_unet.slides.readers.tiff import TiffReader
from wsi_unet.slides.sources import remote_source
from wsi_unet.storage.s3 import client as remote
from wsi_unet.storage.s3.client import open_bucket

Pixels = NDArray[np.uint8]


def upload(path: Path, bucket: str) -> str:
    """Copy a file or a folder into a bucket; return its URL."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        open_bucket(bucket).put(file.relative_to(path.parent).as_posix(), file.read_bytes())
    return f"{bucket}/{path.name}"


def same(slide: Slide, local: Slide) -> None:
    """Assert that all levels, and the properties of the slide, are identical."""
    assert slide.name == local.name
    assert slide.levels == local.levels
    assert (slide.reader, slide.mpp, slide.vendor) == (local.reader, local.mpp, local.vendor)
    assert slide.compression == local.compression
    assert slide.fingerprint() == local.fingerprint()
    for number, level in enumerate(local.levels):
        box = Box.from_shape(level.shape)
        assert (slide.read(number, box) == local.read(number, box)).all()


@pytest.fixture
def small_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read so little on opening that even a small slide must be read later."""
    monkeypatch.setattr(remote_source, "END_BYTES", 4096)
    monkeypatch.setattr(remote_source, "READ_BEFORE", 1024)
    monkeypatch.setattr(remote_source, "READ_AFTER", 8192)


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    """Return a pyramidal TIFF of Deflate tiles, 900 x 700 px, the last level in strips."""
    path = tmp_path / "pyramid ü.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (900, 700, 3), dtype=np.uint8)
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, tile=(64, 64), compression="zlib", subifds=2)
        writer.write(pixels[::2, ::2], tile=(64, 64), compression="zlib", subfiletype=1)
        writer.write(pixels[::4, ::4], rowsperstrip=16, compression="zlib", subfiletype=1)
    return path


@pytest.mark.parametrize("ends", ["usual", "small"])
def test_the_example(
    example_slide_path: Path, bucket: str, ends: str, request: pytest.FixtureRequest
) -> None:
    if ends == "small":
        request.getfixturevalue("small_ends")
    url = upload(example_slide_path, bucket)
    with open_slide(url) as slide, open_slide(example_slide_path) as local:
        assert slide.path == url
        same(slide, local)


@pytest.mark.usefixtures("small_ends")
def test_a_pyramid(pyramid: Path, bucket: str) -> None:
    with open_slide(upload(pyramid, bucket)) as slide, open_slide(pyramid) as local:
        assert len(slide.levels) == 3
        same(slide, local)


def test_real_slides(real_slides: dict[str, Path], bucket: str) -> None:
    for path in real_slides.values():
        with open_slide(upload(path, bucket)) as slide, open_slide(path) as local:
            assert slide.levels == local.levels
            assert slide.fingerprint() == local.fingerprint()
            for number, level in enumerate(local.levels):
                rows, columns = level.shape
                box = Box(rows // 3, columns // 3, min(rows, rows // 3 + 700), columns // 3 + 300)
                assert (slide.read(number, box) == local.read(number, box)).all()


def test_opening_takes_few_requests(
    example_slide_path: Path, real_slides: dict[str, Path], bucket: str, s3_proxy: Proxy
) -> None:
    most = {"CMU-1-Small-Region.svs": 2}
    for path in real_slides.values():
        url = upload(path, bucket)
        s3_proxy.forget()
        with open_slide(url) as slide:
            assert len(s3_proxy.requests) <= most.get(path.name, 4), path.name
            opened = len(s3_proxy.requests)
            slide.fingerprint()
            assert len(s3_proxy.requests) == opened  # of what was read already


@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_with_levels(tmp_path: Path, bucket: str, version: int) -> None:
    path = tmp_path / "a.zarr"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 300, 200), dtype=np.uint8)
    format: Any = version
    group = zarr.create_group(path, zarr_format=format)
    axes = [
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    datasets = []
    for level in range(3):
        data = pixels[:, :: 2**level, :: 2**level]
        options: dict[str, Any] = {"shards": (3, 128, 128)} if version == 3 else {}
        group.create_array(str(level), data=data, chunks=(3, 64, 64), **options)
        scale = {"type": "scale", "scale": [1, 0.5 * 2**level, 0.5 * 2**level]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    image: Any = {"version": "0.4", "axes": axes, "datasets": datasets}
    ome: Any = {"version": "0.5", "multiscales": [image]}
    group.attrs.update({"multiscales": [image]} if version == 2 else {"ome": ome})
    with open_slide(upload(path, bucket)) as slide, open_slide(path) as local:
        assert slide.reader == "zarr"
        assert len(slide.levels) == 3
        same(slide, local)


def test_small_images(tmp_path: Path, bucket: str, random_rgb: Pixels) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(random_rgb).save(path)
    with open_slide(upload(path, bucket)) as slide, open_slide(path) as local:
        same(slide, local)
        assert (slide.read(0, Box(0, 0, 90, 70)) == random_rgb).all()


@pytest.mark.usefixtures("small_ends")
def test_concurrent_reads_overlap(
    pyramid: Path, bucket: str, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While answers take a while, up to 16 requests per slide are under way, of any read."""
    monkeypatch.setattr(remote_source, "MAX_REQUEST", 1)  # nothing is asked for together
    with open_slide(upload(pyramid, bucket)) as slide, open_slide(pyramid) as local:
        slide.read(0, Box(0, 0, 9, 9))  # what decodes has been started
        s3_proxy.forget()
        s3_proxy.delay = 0.1
        box = Box(0, 0, 256, 256)  # 16 tiles
        assert (slide.read(0, box) == local.read(0, box)).all()
        assert len(s3_proxy.requests) == 16
        assert s3_proxy.most_in_flight >= 12
        s3_proxy.forget()
        wanted = [Box(0, x, 64, x + 192) for x in (0, 192, 384)]  # 3 tiles each
        with ThreadPoolExecutor(3) as pool:
            for box, pixels in zip(
                wanted, pool.map(lambda b: slide.read(0, b), wanted), strict=True
            ):
                assert (pixels == local.read(0, box)).all()
        assert len(s3_proxy.requests) == 9
        assert s3_proxy.most_in_flight >= 6


def test_chunks_of_a_zarr_are_read_at_once(
    tmp_path: Path, bucket: str, s3_proxy: Proxy, random_rgb: Pixels
) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=(90, 70, 3), chunks=(16, 16, 3), dtype="u1")
    array[:] = random_rgb
    with open_slide(upload(path, bucket)) as slide:
        s3_proxy.forget()
        s3_proxy.delay = 0.1
        assert (slide.read(0, Box(0, 0, 90, 70)) == random_rgb).all()
        assert len(s3_proxy.requests) == 30
        assert s3_proxy.most_in_flight >= 6


def test_chunks_larger_than_what_belongs_there_are_not_read(
    tmp_path: Path, bucket: str, random_rgb: Pixels
) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=(90, 70, 3), chunks=(16, 16, 3), dtype="u1")
    array[:] = random_rgb
    url = upload(path, bucket)
    open_bucket(url).put("c/0/1/0", bytes(200_000))
    with open_slide(url) as slide:
        assert (slide.read(0, Box(0, 0, 16, 16)) == random_rgb[:16, :16]).all()
        with pytest.raises(SlideError, match="more bytes than belong there"):
            slide.read(0, Box(0, 16, 16, 32))


@pytest.mark.usefixtures("small_ends")
def test_a_window_is_read_in_few_requests(pyramid: Path, bucket: str, s3_proxy: Proxy) -> None:
    with open_slide(upload(pyramid, bucket)) as slide:
        s3_proxy.forget()
        slide.read(0, Box(0, 0, 900, 700))
        spans = [request.span for request in s3_proxy.requests]
    assert 1 <= len(spans) <= 3  # of 165 tiles, 2 MB
    read = sum(stop - start + 1 for start, stop in filter(None, spans))
    assert read <= pyramid.stat().st_size


def test_ranges_are_merged() -> None:
    gap, largest = remote_source.MAX_GAP, remote_source.MAX_REQUEST
    ranges = [(0, 10), (10, gap), (2 * gap + 10, 5), (3 * gap + 16, 5), (50 * gap, largest + 1)]
    assert remote_source.merge_ranges(ranges, range(5)) == [[0, 1, 2], [3], [4]]
    assert remote_source.merge_ranges(ranges, []) == []
    assert remote_source.merge_ranges([(5, 5), (0, 20), (3, 1)], [0, 1, 2]) == [[1, 2, 0]]
    many = [(number * 1000, 1000) for number in range(5000)]
    merged = remote_source.merge_ranges(many, range(5000))
    assert list(chain(*merged)) == list(range(5000))
    assert max(map(len, merged)) * 1000 <= largest


def refused(url: str, match: str, reader: str = "auto") -> None:
    with pytest.raises(SlideError, match=match) as caught:
        open_slide(url, reader)
    assert str(caught.value).startswith(url)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused_in_one_line(bucket: str, pyramid: Path) -> None:
    refused(f"{bucket}/missing.svs", "no such file; check the URL")
    refused("s3://no-such-bucket/a.svs", "there is no bucket 'no-such-bucket'")
    refused(bucket, "give the URL of a slide in it")
    for name, data, match in (
        ("empty.svs", b"", "is empty"),
        ("text.svs", b"no slide\n" * 99, "isn't a slide in a known format"),
        ("cut.tif", pyramid.read_bytes()[:100_000], "truncated|can't read this TIFF"),
        ("bad.png", b"\x89PNG\r\n\x1a\n" + bytes(99), "isn't an image|can't be opened"),
        ("group.zarr/zarr.json", b'{"node_type": "group", "attributes": {}}', "Zarr group"),
        ("broken.zarr/zarr.json", b"{", "isn't valid JSON"),
    ):
        open_bucket(bucket).put(name, data)
        refused(f"{bucket}/{name.partition('/')[0]}", match)


def test_readers_of_files_refuse_urls(example_slide_path: Path, bucket: str) -> None:
    url = upload(example_slide_path, bucket)
    for reader in ("openslide", "dicom"):
        refused(url, rf"the {reader} reader only reads files on a disk; copy the slide", reader)
    open_bucket(bucket).put("a.mrxs", b"\xff\xd8\xff" + bytes(500))
    refused(f"{bucket}/a.mrxs", "copy the slide there first")


@pytest.mark.parametrize(
    ("spoilt", "match"), [(503, "answers 503, after 3 tries"), ("hang", "doesn't answer in time")]
)
@pytest.mark.usefixtures("small_ends")
def test_a_store_that_fails_is_a_tile_that_cannot_be_read(
    pyramid: Path,
    bucket: str,
    s3_proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    spoilt: int | str,
    match: str,
) -> None:
    monkeypatch.setattr(remote, "RETRIES", 2)
    monkeypatch.setattr(remote, "FIRST_PAUSE", timedelta(milliseconds=20))
    monkeypatch.setattr(remote, "TIMEOUT", timedelta(seconds=0.5))
    with open_slide(upload(pyramid, bucket)) as slide, open_slide(pyramid) as local:
        s3_proxy.spoil = lambda request: spoilt
        box = Box(100, 100, 300, 300)
        with pytest.raises(
            SlideError, match=rf"row \d, column \d of level 0 can't be read: .*{match}"
        ):
            slide.read(0, box)
        s3_proxy.spoil = lambda request: None
        assert (slide.read(0, box) == local.read(0, box)).all()


@pytest.mark.usefixtures("small_ends")
def test_a_store_that_fails_for_a_while_is_asked_again(
    pyramid: Path, bucket: str, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", timedelta(milliseconds=20))
    spoilt: list[Request] = []

    def spoil_some(request: Request) -> int | str | None:
        spoilt.append(request)
        spoils: dict[int, int | str] = {0: 503, 1: "drop", 2: "cut", 3: 500}
        return spoils.get(len(spoilt) % 7)

    url = upload(pyramid, bucket)
    s3_proxy.spoil = spoil_some
    with open_slide(url) as slide, open_slide(pyramid) as local:
        same(slide, local)
    assert len(spoilt) > 7


@pytest.mark.usefixtures("small_ends")
def test_a_slide_that_is_replaced_is_noticed(pyramid: Path, bucket: str, tmp_path: Path) -> None:
    url = upload(pyramid, bucket)
    with open_slide(url) as slide:
        open_bucket(bucket).put(pyramid.name, pyramid.read_bytes() + b"\0")
        with pytest.raises(SlideError, match="was changed while it was read"):
            slide.read(0, Box(0, 0, 900, 700))


@pytest.mark.usefixtures("small_ends")
def test_closing_waits_for_nothing_that_hangs(
    pyramid: Path, bucket: str, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that has failed leaves requests behind; closing forgets them."""
    monkeypatch.setattr(remote_source, "MAX_REQUEST", 1)
    slide = open_slide(upload(pyramid, bucket))
    first: list[Request] = []

    def hang_all_but_one(request: Request) -> int | str:
        first.append(request)
        return 403 if len(first) == 1 else "hang"

    s3_proxy.spoil = hang_all_but_one
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(slide.read, 0, Box(0, 0, 64, 64))
        wait_until(reading.done)
    with pytest.raises(SlideError, match="access is denied"):
        reading.result()
    slide.close()
    with pytest.raises(SlideError, match="is closed"):
        slide.read(0, Box(0, 0, 9, 9))


def _read(url: str) -> tuple[str, int]:
    with open_slide(url) as slide:
        return slide.fingerprint(), int(slide.read(0, Box(0, 0, 99, 99)).sum())


def test_processes_open_slides_of_their_own(example_slide_path: Path, bucket: str) -> None:
    url = upload(example_slide_path, bucket)
    expected = _read(url)  # this process has connections, which aren't taken along
    context: Any = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(_read, (url,)) == expected


@pytest.mark.usefixtures("small_ends")
def test_composed_slides_are_read_too(
    tmp_path: Path, bucket: str, random_rgb: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the direct path can't do is done by tiffslide, from the same object."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random_rgb, tile=(32, 32))
    monkeypatch.setattr(tifffile.TiffPageSeries, "is_multifile", True, raising=False)
    monkeypatch.setattr(tifffile.TiffPageSeries, "__setattr__", _ignore_multifile, raising=False)
    with open_slide(upload(path, bucket)) as slide:
        assert isinstance(slide._reader, TiffReader)
        assert not slide._reader.direct
        assert (slide.read(0, Box(3, 5, 90, 70)) == random_rgb[3:90, 5:70]).all()


def _ignore_multifile(series: Any, name: str, value: Any) -> None:
    if name != "is_multifile":
        object.__setattr__(series, name, value)
