from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import wsi_unet
from wsi_unet.annotations.annotation import Annotation
from wsi_unet.annotations.polygons import area
from wsi_unet.annotations.reading import read_annotations
from wsi_unet.errors import AnnotationError
from wsi_unet.geometry import Box
from wsi_unet.slides.tissue.mask_files import read_mask

SQUARE = [(1.5, 2), (9, 2), (9, 12.25), (1.5, 12.25)]


def outline(
    points: list[tuple[float, float]],
    kind: str = "Polygon",
    group: str | None = "Tumor",
    order: list[int] | None = None,
) -> str:
    place = "" if group is None else f'PartOfGroup="{group}" '
    coordinates = "".join(
        f'<Coordinate Order="{number}" X="{x}" Y="{y}" />'
        for number, (x, y) in zip(order or range(len(points)), points, strict=True)
    )
    return (
        f'<Annotation Name="Annotation 0" Type="{kind}" {place}Color="#F4FA58">'
        f"<Coordinates>{coordinates}</Coordinates></Annotation>"
    )


def document(*annotations: str, declaration: str = '<?xml version="1.0"?>\n') -> str:
    groups = '<AnnotationGroups><Group Name="Tumor" PartOfGroup="None" /></AnnotationGroups>'
    inside = "".join(annotations)
    return (
        f"{declaration}<ASAP_Annotations><Annotations>{inside}</Annotations>{groups}"
        "</ASAP_Annotations>"
    )


def read(tmp_path: Path, content: str | bytes) -> Sequence[Annotation]:
    path = tmp_path / "a.xml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_annotations(path).annotations


def test_an_outline_is_a_ring_of_y_and_x_in_a_class(tmp_path: Path) -> None:
    (found,) = read(tmp_path, document(outline(SQUARE)))
    assert (found.name, found.title) == ("Tumor", "Annotation 0")
    ((ring,),) = found.polygons
    assert ring.tolist() == [[y, x] for x, y in SQUARE]
    assert area((ring,)) == 7.5 * 10.25


def test_points_are_sorted_by_their_order(tmp_path: Path) -> None:
    order = [2, 0, 3, 1]
    (found,) = read(tmp_path, document(outline([SQUARE[i] for i in order], order=order)))
    assert found.polygons[0][0].tolist() == [[y, x] for x, y in SQUARE]


def test_what_covers_an_area_is_taken_and_the_rest_left_out(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        document(
            outline(SQUARE[:1], "Dot"),
            outline(SQUARE, "PointSet"),
            outline(SQUARE, "Measurement"),
            outline(SQUARE[:2], "Polygon"),
            outline([], "Polygon"),
            outline(SQUARE, "Spline", group="Other"),
            outline(SQUARE, "Rectangle", group="None"),
            outline([SQUARE[0], SQUARE[2]], "Rectangle", group=None),
        ),
    )
    assert [one.name for one in found] == ["Other", "unclassified", "unclassified"]
    assert {area(one.polygons[0]) for one in found} == {7.5 * 10.25}


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY c "&a;&a;&a;&a;&a;&a;">]>'
)
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        (b"\x00\x01\x02", "neither GeoJSON nor ASAP XML"),
        ("x: 1", "neither GeoJSON nor ASAP XML"),
        (document(outline(SQUARE))[:-10], "isn't valid XML"),
        ("<", "isn't valid XML"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', "isn't valid XML"),
        (document(outline(SQUARE, group="&c;"), declaration=BOMB), "isn't valid XML.*Entit"),
        (document(outline(SQUARE, group="&a;"), declaration=OUTSIDE), "isn't valid XML.*Entit"),
        ("<Annotations><Annotation><Regions/></Annotation></Annotations>", "isn't an ASAP"),
        (document(), "holds no polygons"),
        (document(outline(SQUARE, "Dot")), "holds no polygons"),
        (document(outline(SQUARE).replace('X="9"', 'X="nine"')), "a coordinate's X is 'nine'"),
        (document(outline(SQUARE).replace('Y="2"', 'Y="nan"')), "a coordinate's Y is 'nan'"),
        (document(outline(SQUARE).replace('Y="2"', "")), "a coordinate's Y is ''"),
        (document(outline(SQUARE).replace('X="9"', 'X="1e30"')), "aren't pixels"),
    ],
)
def test_what_cant_be_read_is_one_line(tmp_path: Path, content: str | bytes, match: str) -> None:
    with pytest.raises(AnnotationError, match=match) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "a.xml") in str(caught.value)


def test_a_result_is_evaluated_against_it_and_within_it(tmp_path: Path) -> None:
    from PIL import Image

    labels = np.zeros((40, 60), np.uint8)
    box = Box(4, 10, 24, 30)
    labels[box.slices()] = 1
    prediction = tmp_path / "p.png"
    Image.fromarray(labels).save(prediction)
    corners = [(10.0, 4.0), (30.0, 4.0), (30.0, 24.0), (10.0, 24.0)]
    truth, within = tmp_path / "truth.xml", tmp_path / "within.xml"
    truth.write_text(document(outline(corners)))
    within.write_text(document(outline([(0, 0), (30, 0), (30, 40), (0, 40)])))
    found = wsi_unet.evaluate(prediction, truth, classes={"tumour": (1, "Tumor")}, within=within)
    assert found.pixels == 30 * 40
    assert found.pixel_error == 0
    assert found.classes[1].truth_pixels == 400
    assert found.truth_annotations is not None
    assert found.truth_annotations.polygons == 1


def test_it_can_be_a_mask_of_tissue(tmp_path: Path) -> None:
    path = tmp_path / "mask.xml"
    path.write_text(document(outline([(2, 1), (6, 1), (6, 5), (2, 5)])))
    expected = np.zeros((8, 9), np.bool_)
    expected[1:5, 2:6] = True
    assert (read_mask(path, (8, 9)) == expected).all()
