"""What samples mean: alpha, channels that are no colours, planes, turned images, and gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box
from wsi_unet.samples import UnclearSamplesError, sample_meaning, stored_box, turn_upright
from wsi_unet.slides import PixelSize, Slide, open_slide
from wsi_unet.slides.readers.zarr_gaps import LevelArray

Pixels = NDArray[np.uint8]


def all_pixels(slide: Slide, level: int = 0) -> Pixels:
    return slide.read(level, Box.from_shape(slide.levels[level].shape))


def on_white(colour: Pixels, alpha: Pixels) -> NDArray[np.float64]:
    return colour * (alpha / 255.0) + 255.0 - alpha


@pytest.fixture
def alpha() -> Pixels:
    """Return an uneven alpha channel (90, 70, 1) from 0 to 255."""
    return np.linspace(0, 255, 90 * 70).astype(np.uint8).reshape(90, 70, 1)


@pytest.mark.parametrize("tile", [None, (32, 32)])
@pytest.mark.parametrize("colours", [1, 3])
def test_alpha_is_multiplied_once(
    tmp_path: Path, random_rgb: Pixels, alpha: Pixels, tile: Any, colours: int
) -> None:
    colour = random_rgb[..., :colours]
    premultiplied = np.rint(colour * (alpha / 255.0)).astype(np.uint8)
    for name, stored in (("unassalpha", colour), ("assocalpha", premultiplied)):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(
            path,
            np.concatenate([stored, alpha], axis=2),
            photometric="rgb" if colours == 3 else "minisblack",
            extrasamples=[name],
            tile=tile,
        )
        with open_slide(path) as slide:
            difference = all_pixels(slide) - on_white(colour, alpha)
            assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("samples", [2, 3, 4, 5])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_channels_that_are_no_colours_are_refused(
    tmp_path: Path, random_rgb: Pixels, samples: int, planar: Any
) -> None:
    channels = np.concatenate([random_rgb, random_rgb], axis=2)[..., :samples]
    if planar == "separate":
        channels = np.ascontiguousarray(np.moveaxis(channels, 2, 0))
    tifffile.imwrite(tmp_path / "a.tif", channels, photometric="minisblack", planarconfig=planar)
    with pytest.raises(SlideError, match=r"channels that aren't stated|stack"):
        open_slide(tmp_path / "a.tif")


def test_a_fourth_sample_of_unknown_meaning_is_left_out_and_said(
    tmp_path: Path, random_rgb: Pixels, alpha: Pixels
) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.concatenate([random_rgb, alpha], axis=2),
        photometric="rgb",
        extrasamples=["unspecified"],
    )
    with open_slide(tmp_path / "a.tif") as slide:
        assert (all_pixels(slide) == random_rgb).all()
        assert slide.warnings == ("its fourth channel isn't stated to be alpha and was left out",)


def test_meanings_that_nobody_states_are_refused() -> None:
    assert sample_meaning(2, 4, ()).alpha == "straight"  # as Pillow reads it
    assert sample_meaning(6, 3, ()).colours == 3
    for photometric, samples, extra in ((1, 2, (0,)), (1, 4, ()), (2, 5, (2, 0)), (2, 2, ())):
        with pytest.raises(UnclearSamplesError, match="channels"):
            sample_meaning(photometric, samples, extra)
    for photometric, match in (
        (0, "MINISWHITE"),
        (3, "PALETTE"),
        (5, "CMYK"),
        (9, "ICCLAB"),
        (99, "99"),
    ):
        with pytest.raises(UnclearSamplesError, match=match):
            sample_meaning(photometric, 1, ())


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
@pytest.mark.parametrize("tile", [None, (32, 48)])
def test_colours_in_separate_planes(
    tmp_path: Path, random_rgb: Pixels, compression: str | None, tile: Any
) -> None:
    path = tmp_path / "a.tif"
    planes = np.ascontiguousarray(np.moveaxis(random_rgb, 2, 0))
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(path, planes, tile=tile, compression=compression, **options)
    expected = np.moveaxis(tifffile.imread(path), 0, 2)
    with open_slide(path) as slide:
        assert (all_pixels(slide) == expected).all()
        assert (slide.read(0, Box(31, 40, 70, 66)) == expected[31:70, 40:66]).all()
        assert slide.warnings == ()


def channels_tiff(path: Path, pixels: Pixels, **described: Any) -> Path:
    planes = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    with tifffile.TiffWriter(path, ome=True) as writer:
        options: dict[str, Any] = {"photometric": "minisblack", "tile": (32, 32)}
        metadata = {"axes": "CYX", "Channel": described}
        writer.write(planes, subifds=1, metadata=metadata, **options)
        writer.write(planes[:, ::2, ::2], subfiletype=1, **options)
    return path


RED, GREEN, BLUE = -16776961, 16711935, 65535
"""As OME-XML states colours: RGBA in 32 bits, signed."""


@pytest.mark.parametrize(
    ("described", "order"),
    [
        ({"Color": [RED, GREEN, BLUE]}, [0, 1, 2]),
        ({"Name": ["Red", "Green", "Blue"]}, [0, 1, 2]),
        ({"Color": [BLUE, GREEN, RED]}, [2, 1, 0]),
        ({"Color": [BLUE, GREEN, GREEN]}, None),
        ({"Name": ["DAPI", "FITC", "Cy3"]}, None),
        ({"Name": ["Red", "Green", "Blue"], "Color": [BLUE, GREEN, RED]}, None),
        ({"Name": ["Red", "Green", "Blue"], "Color": [RED, GREEN, BLUE]}, [0, 1, 2]),
        ({"Fluor": ["a", "b", "c"], "Color": [RED, GREEN, BLUE]}, None),
        ({"ContrastMethod": ["Fluorescence"] * 3, "Color": [RED, GREEN, BLUE]}, None),
        ({"ContrastMethod": ["Brightfield"] * 3, "Color": [RED, GREEN, BLUE]}, [0, 1, 2]),
        ({"Name": ["DAPI", "FITC", "Texas Red"], "Color": [BLUE, GREEN, RED]}, None),
        ({"Name": ["Channel 0", "Channel 1", "C:2"], "Color": [RED, GREEN, BLUE]}, [0, 1, 2]),
        ({}, None),
    ],
)
def test_three_channels_are_a_slide_if_they_are_red_green_and_blue(
    tmp_path: Path, random_rgb: Pixels, described: dict[str, Any], order: list[int] | None
) -> None:
    path = channels_tiff(tmp_path / "a.ome.tif", random_rgb, **described)
    if order is None:
        with pytest.raises(SlideError, match="multi-channel fluorescence"):
            open_slide(path)
        return
    with open_slide(path) as slide:
        assert (all_pixels(slide) == random_rgb[..., order]).all()
        assert (all_pixels(slide, 1) == random_rgb[::2, ::2, order]).all()


@pytest.mark.parametrize("shape", [(1, 90, 70, 3), (1, 90, 70), (1, 1, 90, 70, 3)])
@pytest.mark.parametrize("kind", ["shaped", "ome", "imagej"])
def test_axes_of_length_one(
    tmp_path: Path, random_rgb: Pixels, shape: tuple[int, ...], kind: str
) -> None:
    colours = 3 if shape[-1] == 3 else 1
    pixels = random_rgb[..., :colours].reshape(shape)
    options: dict[str, Any] = {"ome": {"ome": True}, "imagej": {"imagej": True}}.get(kind, {})
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    photometric: Any = "rgb" if colours == 3 else "minisblack"
    tifffile.imwrite(path, pixels, photometric=photometric, **options)
    with open_slide(path) as slide:
        assert (all_pixels(slide) == random_rgb[..., :colours]).all()
        assert slide.warnings == ()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_turned_images_are_read_upright(
    tmp_path: Path, random_rgb: Pixels, orientation: int, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tags = [(274, 3, 1, orientation, True)]
        tifffile.imwrite(path, random_rgb, tile=(32, 32), extratags=tags, photometric="rgb")
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(random_rgb).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    with open_slide(path) as slide:
        assert slide.shape == expected.shape[:2]
        assert (all_pixels(slide) == expected).all()
        assert (slide.read(0, Box(3, 5, 33, 60)) == expected[3:33, 5:60]).all()
        assert bool(slide.warnings) == (orientation != 1)


@pytest.mark.parametrize(
    "exif",
    [
        b"junk",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\xff\xff\xff\x7f",
        b"II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\x40\0\0\0\0\x01\0\0\0\0\0\0",  # a text beyond it
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_damaged_exif_is_left_out_and_said(
    tmp_path: Path, random_rgb: Pixels, exif: bytes, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(random_rgb).save(path, exif=b"Exif\0\0" + exif)
    with open_slide(path) as slide:
        assert np.abs(all_pixels(slide).astype(int) - random_rgb).mean() < 60  # JPEG of noise
        assert slide.warnings == ("its EXIF is damaged and was left out",)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_without_an_orientation_is_sound(
    tmp_path: Path, random_rgb: Pixels, suffix: str
) -> None:
    exif = Image.Exif()
    exif[271] = "the maker of a camera"
    Image.fromarray(random_rgb).save(tmp_path / f"a.{suffix}", exif=exif)
    with open_slide(tmp_path / f"a.{suffix}", "image") as slide:
        assert slide.warnings == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_turned_images(orientation: int) -> None:
    stored = np.arange(5 * 7).reshape(5, 7)
    shown = turn_upright(stored, orientation)
    box = Box(1, 2, 4, 5)
    there = stored_box(box, (shown.shape[0], shown.shape[1]), orientation)
    assert (turn_upright(stored[there.slices()], orientation) == shown[box.slices()]).all()


def test_one_colour_that_stands_for_transparency_is_white(
    tmp_path: Path, random_rgb: Pixels
) -> None:
    random_rgb[:20] = 7
    Image.fromarray(random_rgb).save(tmp_path / "a.png", transparency=(7, 7, 7))
    with open_slide(tmp_path / "a.png") as slide:
        assert (all_pixels(slide)[:20] == 255).all()
        assert (all_pixels(slide)[20:] == random_rgb[20:]).all()


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiles_that_nobody_scanned_are_white(
    tmp_path: Path, random_rgb: Pixels, compression: str | None, planar: Any
) -> None:
    tile = np.ascontiguousarray(random_rgb[:32, :32])

    def tiles() -> Any:
        for number in range(12 if planar == "contig" else 36):
            plane = tile if planar == "contig" else tile[..., number // 12]
            yield None if number % 3 else plane

    path = tmp_path / "a.tif"
    shape = (90, 128, 3) if planar == "contig" else (3, 90, 128)
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": planar}
    tifffile.imwrite(
        path,
        tiles(),
        shape=shape,
        dtype=np.uint8,
        tile=(32, 32),
        compression=compression,
        **options,
    )
    with open_slide(path) as slide:
        pixels = all_pixels(slide)
    assert (pixels[:32, 32:96] == 255).all()
    assert (pixels[:32, :32] < 250).any()
    if planar == "contig":
        with open_slide(path, "openslide") as theirs:
            assert np.abs(pixels.astype(int) - all_pixels(theirs)).max() <= 1


@pytest.mark.parametrize("colours", [1, 3])
def test_slides_say_whether_they_are_grey(tmp_path: Path, random_rgb: Pixels, colours: int) -> None:
    pixels = random_rgb if colours == 3 else random_rgb[..., 0]
    tifffile.imwrite(tmp_path / "plain.tif", pixels, tile=(32, 32))
    turned = [(274, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "turned.tif", pixels, tile=(32, 32), extratags=turned)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).convert("LA" if colours == 1 else "RGBA").save(tmp_path / "alpha.png")
    chunks = (32, 32, 3)[: pixels.ndim]
    zarr.create_array(tmp_path / "a.zarr", shape=pixels.shape, dtype="u1", chunks=chunks)
    for path in tmp_path.iterdir():
        with open_slide(path) as slide:
            assert slide.colours == colours, path.name


def test_gaps_of_grey_slides_stay_black(tmp_path: Path, random_rgb: Pixels) -> None:
    tiles = (tile for tile in (random_rgb[:32, :32, 0], None))
    tifffile.imwrite(
        tmp_path / "a.tif",
        tiles,
        shape=(32, 64),
        dtype=np.uint8,
        tile=(32, 32),
        photometric="minisblack",
    )
    with open_slide(tmp_path / "a.tif") as slide:
        assert not all_pixels(slide)[:, 32:].any()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": (32, 32, 3)},
        {"chunks": (32, 32, 3), "shards": (64, 64, 3)},
        {"chunks": (32, 32, 1)},
    ],
)
def test_chunks_that_nobody_scanned_are_white(
    tmp_path: Path, random_rgb: Pixels, version: Any, layout: dict[str, Any]
) -> None:
    if version == 2:
        layout = {"chunks": layout["chunks"]}
    array = zarr.create_array(
        tmp_path / "a", shape=(90, 70, 3), dtype="u1", zarr_format=version, **layout
    )
    red = np.zeros((32, 32, 3), np.uint8)  # whose other colours may have no chunks of their own
    red[..., 0] = 255
    array[:32, :32] = red
    array[:32, 32:64] = random_rgb[:32, 32:64]
    with open_slide(tmp_path / "a") as slide:
        pixels = all_pixels(slide)
        sparse = slide.fingerprint()
    assert (pixels[:32, :32] == red).all()
    assert (pixels[:32, 32:64] == random_rgb[:32, 32:64]).all()
    assert (pixels[32:] == 255).all()
    array[:] = random_rgb
    with open_slide(tmp_path / "a") as slide:
        assert (all_pixels(slide) == random_rgb).all()
        assert slide.fingerprint() != sparse


class _CountingStore(zarr.storage.MemoryStore):
    """A store in memory that keeps the names of the chunks that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        self.read.append(key)
        return await super().get(key, *args, **options)


def test_chunks_of_one_colour_are_decoded_again_only_to_find_gaps() -> None:
    store = _CountingStore()
    array = zarr.create_array(store, shape=(3, 64, 64), chunks=(1, 32, 32), dtype="u1")
    array[:2] = 7
    level, whole = LevelArray(array, "cyx"), (slice(None), slice(None), slice(None))
    store.read.clear()
    assert (level.read(whole) == np.array([7, 7, 0]).reshape(3, 1, 1)).all()
    assert len(store.read) == len(set(store.read)) == 12
    array[:2, :, :32] = 0  # so that no colour of these pixels has a chunk
    assert (level.read(whole)[..., :32] == 255).all()


def test_a_fill_value_that_somebody_chose_is_kept(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", shape=(90, 70, 3), dtype="u1", fill_value=240)
    zarr.create_array(tmp_path / "b", shape=(90, 70), dtype="u1")
    for name, value in (("a", 240), ("b", 0)):
        with open_slide(tmp_path / name) as slide:
            assert (all_pixels(slide) == value).all()


SCN = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection name="c" sizeX="100000"
sizeY="100000">{images}</collection></scn>"""
SCN_IMAGE = """<image name="image_{first}"><creationDate>2011</creationDate><device model="m"
version="1"/><pixels sizeX="{side}" sizeY="{side}"><dimension sizeX="{side}" sizeY="{side}" r="0"
ifd="{first}"/><dimension sizeX="{half}" sizeY="{half}" r="1" ifd="{second}"/></pixels>
<view sizeX="{nm}" sizeY="{nm}" offsetX="{x}" offsetY="{y}" spacingZ="0"/><scanSettings>
<objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>
<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>
</illuminationSettings></scanSettings></image>"""


def test_the_images_of_a_leica_slide_lie_on_white(tmp_path: Path, random_rgb: Pixels) -> None:
    """Two scanned regions on a slide of 100 x 100 µm, 0.5 µm per px, and its macro."""
    macro = SCN_IMAGE.format(first=0, second=1, side=20, half=10, nm=100_000, x=0, y=0)
    regions = [
        SCN_IMAGE.format(first=first, second=first + 1, side=64, half=32, nm=32_000, x=x, y=y)
        for first, x, y in ((2, 10_000, 20_000), (4, 60_000, 50_000))
    ]
    path = tmp_path / "a.scn"
    parts = [random_rgb[:64, :64], random_rgb[-64:, -64:]]
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        options: dict[str, Any] = {"photometric": "rgb", "metadata": None}
        description = SCN.format(images="".join([macro, *regions]))
        writer.write(random_rgb[:20, :20], description=description, **options)
        writer.write(random_rgb[:10, :10], subfiletype=1, **options)
        for part in parts:
            writer.write(part, tile=(32, 32), **options)
            writer.write(part[::2, ::2], tile=(32, 32), subfiletype=1, **options)
    expected = np.full((200, 200, 3), 255, np.uint8)
    expected[40:104, 20:84], expected[100:164, 120:184] = parts
    with open_slide(path, "tiffslide") as slide:
        assert (slide.vendor, slide.mpp) == ("leica", PixelSize(0.5, 0.5))
        assert [level.shape for level in slide.levels] == [(200, 200), (100, 100)]
        assert (all_pixels(slide) == expected).all()
        assert (all_pixels(slide, 1)[20:52, 10:42] == parts[0][::2, ::2]).all()
    with open_slide(path, "tiffslide", series=1) as slide:
        assert (all_pixels(slide) == parts[0]).all()
