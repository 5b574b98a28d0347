"""OME-TIFF as tifffile, tiffslide, OpenSlide, ome-types, the schema and our own reader read it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lxml.etree
import numpy as np
import ome_types
import openslide
import pytest
import tiffslide
from exports.results import LABELS, SHAPE, add_image, add_probabilities, make_result, read_levels
from numpy.typing import NDArray
from support.labelled import blobs, write_store
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile

import wsi_unet
from wsi_unet import ExportOptions, OptionError, OutputError
from wsi_unet.exports.pyramids import tiles
from wsi_unet.geometry import Box
from wsi_unet.slides import open_slide

COLOURS = {0: (255, 255, 255), 1: (42, 111, 219), 2: (42, 111, 219), 255: (200, 200, 200)}
"""The colours of label values; `write_store` gives all classes the same."""

REGION = [100, 40, 500, 900]
TISSUE = blobs((14, 22), seed=3, values=2).astype(np.bool_)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result with all that can be exported; the model looked at tissue in a region."""
    path = tmp_path_factory.mktemp("result") / "slide.ome.zarr"
    write_store(path, _inside(LABELS), regions=[REGION], mpp=(0.25, 0.5))
    add_probabilities(path)
    add_image(path)
    return path


def _inside(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return labels without what lies outside the region, which a run wouldn't have."""
    inside = np.zeros_like(labels)
    part = Box(*REGION).slices()
    inside[part] = labels[part]
    return inside


def _export(result: Path, folder: Path, what: str | None = None, **options: Any) -> Path:
    path = folder / "out.ome.tiff"
    wsi_unet.export(result, "ome-tiff", path, options=ExportOptions(what=what, **options))
    return path


def _read_levels(path: Path) -> list[NDArray[np.uint8]]:
    with TiffFile(path) as tiff:
        assert tiff.is_ome
        assert tiff.is_bigtiff
        (series,) = tiff.series
        return [level.asarray() for level in series.levels]


def _paint(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    palette = np.zeros((256, 3), np.uint8)
    for value, colour in COLOURS.items():
        palette[value] = colour
    return palette[labels]


def _assert_equal(found: list[NDArray[np.uint8]], expected: list[NDArray[np.uint8]]) -> None:
    assert [level.shape for level in found] == [level.shape for level in expected]
    assert all(map(np.array_equal, found, expected))


def _read_xml(path: Path) -> bytes:
    with TiffFile(path) as tiff:
        return bytes(tiff.pages.first.tags["ImageDescription"].value, "utf-8")


@pytest.mark.parametrize("shape", [(700, 1100), (1, 1), (513, 40), (512, 2600)])
@pytest.mark.parametrize("whole", [True, False])
def test_labels_are_those_of_the_pyramid(
    shape: tuple[int, int], whole: bool, tmp_path: Path
) -> None:
    path = tmp_path / "slide.ome.zarr"
    regions = None if whole else [[0, 0, 1, shape[1]]]
    labels = blobs(shape)
    if not whole:
        labels[1:] = 0
    write_store(path, labels, regions=regions, downsample=(1.5, 3.25), mpp=(0.25, 0.5))
    _assert_equal(_read_levels(_export(path, tmp_path)), read_levels(path))


def test_labels_have_the_colours_of_their_classes(result: Path, tmp_path: Path) -> None:
    with TiffFile(_export(result, tmp_path)) as tiff:
        page = tiff.pages.first
        assert (page.photometric, page.compression) == (
            PHOTOMETRIC.PALETTE,
            COMPRESSION.ADOBE_DEFLATE,
        )
        assert page.colormap is not None
        colours = {value: tuple(page.colormap[:, value] >> 8) for value in COLOURS}
    assert colours == COLOURS


def test_overlay_shows_where_the_model_did_not_look(result: Path, tmp_path: Path) -> None:
    path = _export(result, tmp_path, "overlay")
    _assert_equal(_read_levels(path), [_paint(level) for level in read_levels(result)])


def test_tissue_is_told_from_glass(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    write_store(path, np.zeros(SHAPE, np.uint8), tissue=TISSUE)
    (finest, *_) = _read_levels(_export(path, tmp_path))
    assert {*np.unique(finest).tolist()} == {0, 255}
    assert np.array_equal(finest == 0, wsi_unet.open_labels(path).predicted)


def test_probabilities_have_a_channel_for_each_class(result: Path, tmp_path: Path) -> None:
    path = _export(result, tmp_path, "probabilities")
    found = _read_levels(path)
    for level, pixels in enumerate(found):
        stored = wsi_unet.open_probabilities(result, level=level).to_numpy()
        assert np.array_equal(pixels[:3], stored)
        looked = wsi_unet.open_labels(result, level=level).predicted.to_numpy()
        assert np.array_equal(pixels[3], np.where(looked, 0, 255))
    channels = ome_types.from_tiff(path).images[0].pixels.channels
    assert [each.name for each in channels] == ["background", "nucleus", "tumour", "not predicted"]
    rgb = [each.color.as_rgb_tuple(alpha=False) for each in channels if each.color]
    assert rgb == [(0, 0, 0), (42, 111, 219), (219, 42, 111), (0, 0, 0)]


def test_image_is_the_stored_one(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    write_store(path, LABELS, mpp=(0.25, 0.5))
    levels = add_image(path, downsample=(2.0, 4.0))
    exported = _export(path, tmp_path, "image")
    # 350 x 275 px need one level, though the result stores as many as the labels have
    _assert_equal(_read_levels(exported), [np.moveaxis(levels[0], 0, -1)])
    pixels = ome_types.from_tiff(exported).images[0].pixels
    assert (pixels.physical_size_y, pixels.physical_size_x) == (0.5, 2.0)


@pytest.mark.parametrize("what", ["overlay", "image"])
def test_slide_readers_open_pictures(what: str, result: Path, tmp_path: Path) -> None:
    path = _export(result, tmp_path, what)
    levels = _read_levels(path)
    with tiffslide.TiffSlide(path) as slide:
        assert slide.level_count == len(levels)
        for number, pixels in enumerate(levels):
            region = slide.read_region(
                (0, 0), number, slide.level_dimensions[number], as_array=True
            )
            assert np.array_equal(region, pixels)
    with openslide.OpenSlide(path) as known:
        region = np.asarray(known.read_region((0, 0), 0, known.dimensions))
        assert np.array_equal(region[..., :3], levels[0])
        assert float(known.properties["openslide.mpp-x"]) == pytest.approx(0.5)
    with open_slide(path) as own:
        assert own.mpp is not None
        assert (own.mpp.y, own.mpp.x) == pytest.approx((0.25, 0.5))
        for number, pixels in enumerate(levels):
            shape = own.levels[number].shape
            assert np.array_equal(own.read(number, Box.from_shape(shape)), pixels)


@pytest.mark.parametrize("what", ["labels", "overlay", "probabilities", "image"])
@pytest.mark.parametrize("mpp", [None, (0.25, 0.5)])
def test_metadata_are_valid(what: str, mpp: tuple[float, float] | None, tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    # Names that XML can't hold as they are, or that Bio-Formats reads wrong if they are escaped
    classes = ("background", "nucléus & <b>\x0b\ufffe", "a\n#b")
    write_store(path, LABELS, mpp=mpp, downsample=(1.5, 3.25), classes=classes, slide="söme µ")
    add_probabilities(path)
    add_image(path)
    exported = _export(path, tmp_path, what)
    xml = _read_xml(exported)
    assert b"&#" not in xml
    spec = find_spec("ome_types")
    assert spec is not None
    assert spec.origin is not None
    schema = lxml.etree.parse(Path(spec.origin).with_name("ome-2016-06.xsd"))
    lxml.etree.XMLSchema(schema).assertValid(lxml.etree.fromstring(xml))
    document = ome_types.from_xml(xml.decode())
    pixels = document.images[0].pixels
    assert (pixels.size_y, pixels.size_x) == SHAPE
    size = (pixels.physical_size_y, pixels.physical_size_x)
    assert size == ((None, None) if mpp is None else (0.25 * 1.5, 0.5 * 3.25))
    assert "For research, not for diagnosis." in str(document.images[0].description)


def test_metadata_say_where_it_comes_from(result: Path, tmp_path: Path) -> None:
    document = ome_types.from_tiff(_export(result, tmp_path))
    assert document.structured_annotations is not None
    provenance, values = document.structured_annotations.map_annotations
    said = {pair.k: pair.value for pair in provenance.value.ms}
    assert (said["creator"], said["slide"]) == ("wsi-unet", "a slide")
    assert '"label": "nuclei"' in str(said["provenance"])
    meanings = {pair.k: pair.value for pair in values.value.ms}
    expected = {"0": "background", "1": "nucleus", "2": "tumour", "255": "not predicted"}
    assert meanings == expected
    assert document.images[0].annotation_refs[0].id == provenance.id


def test_the_bytes_depend_on_the_labels_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for block in (512, 1024):
        result = make_result(tmp_path / f"{block}" / "slide.ome.zarr", block=block)
        monkeypatch.setattr(tiles, "BAND_COLUMNS", block)
        found.add(_export(result, tmp_path).read_bytes())
    assert len(found) == 1


def test_one_of_several_groups_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    write_store(path, LABELS, name="first")
    write_store(path, np.flipud(LABELS), name="second")
    for what in ("labels", "overlay"):
        with pytest.raises(OutputError, match="several labels; give `label` one of first, second"):
            _export(path, tmp_path, what)
    _assert_equal(
        _read_levels(_export(path, tmp_path, label="second")), read_levels(path, "second")
    )
    for name in ("first", "second"):
        add_probabilities(path, name)
    with pytest.raises(OutputError, match="2 runs stored probabilities; give `label` one of first"):
        _export(path, tmp_path, "probabilities")
    (finest, *_) = _read_levels(_export(path, tmp_path, "probabilities", label="second"))
    assert np.array_equal(finest, wsi_unet.open_probabilities(path, "second"))


def test_a_class_in_grey_is_told_from_where_the_model_did_not_look(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    write_store(path, _inside(LABELS), regions=[REGION], color="#c8c8c8")
    (finest, *_) = _read_levels(_export(path, tmp_path, "overlay"))
    assert {*np.unique(finest).tolist()} == {255, 200, 168}


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    write_store(path, _inside(LABELS), regions=[REGION], color="#ffffff")
    before = {*tmp_path.iterdir()}
    with pytest.raises(OptionError, match="'nucleus' is white, as background is"):
        _export(path, tmp_path, "overlay")
    with pytest.raises(OptionError, match="`what` is 'colours'; give one of labels, overlay"):
        _export(path, tmp_path, "colours")
    with pytest.raises(OutputError, match="no image of the slide is stored; segment again with"):
        _export(path, tmp_path, "image")
    with pytest.raises(OutputError, match="no probabilities are stored; segment with"):
        _export(path, tmp_path, "probabilities")
    add_image(path)
    (path / ".wsi_unet" / "image" / "tail.json").unlink()
    with pytest.raises(OutputError, match="the stored image isn't finished"):
        _export(path, tmp_path, "image")
    assert {*tmp_path.iterdir()} == before


def test_labels_without_a_value_to_spare_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    classes = tuple(f"class {value}" for value in range(256))
    write_store(path, _inside(LABELS), regions=[REGION], classes=classes)
    with pytest.raises(OutputError, match="255 classes, which leave no value"):
        _export(path, tmp_path)
