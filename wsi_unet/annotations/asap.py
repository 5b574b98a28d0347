"""ASAP annotations: XML with outlines in full-resolution pixels of a slide, in named groups.

<ASAP_Annotations>
  <Annotations>
    <Annotation Name="Annotation 0" Type="Polygon" PartOfGroup="Tumor" Color="#F4FA58">
      <Coordinates><Coordinate Order="0" X="9216.5" Y="13248" /> … </Coordinates>
    </Annotation>
  </Annotations>
</ASAP_Annotations>

An outline of any type, splines too, is taken as the polygon through its points, as in the masks
that ASAP itself makes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from defusedxml.ElementTree import fromstring

from wsi_unet.annotations.annotation import (
    UNCLASSIFIED,
    AnnotationCollector,
    Annotations,
    Points,
)
from wsi_unet.errors import AnnotationError, foreign_errors_as

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

ROOT = "ASAP_Annotations"
OUTLINES = ("Polygon", "Spline", "Rectangle")
"""The types that cover an area; Dot, PointSet and Measurement don't."""
NO_GROUP = ("", "None")
"""Values of PartOfGroup for annotations that are in no group."""


def parse_asap(path: Path, data: bytes) -> Annotations:
    """Return the annotations of an ASAP document that cover an area.

    An annotation's class is the group that it is part of. Points are left out; outlines of one
    point, or of two that aren't the corners of a rectangle, are left out and counted.

    Args:
        path: the file, for messages.
        data: the XML.

    Raises:
        AnnotationError: it isn't a valid ASAP annotation file. Entities, with which a small file
            can fill the memory, are refused.
    """
    with foreign_errors_as(AnnotationError, f"{path}: isn't valid XML"):
        root = fromstring(data)
    if root.tag != ROOT:
        raise AnnotationError(
            f"{path}: isn't an ASAP annotation file: its root is <{root.tag[:40]}>, not <{ROOT}>; "
            "export the annotations as GeoJSON or ASAP XML"
        )
    collector = AnnotationCollector(path)
    for number, node in enumerate(root.iterfind("Annotations/Annotation"), 1):
        if node.get("Type") in OUTLINES:
            name = _class_name(node)
            title = node.get("Name", "").strip()
            where = f"annotation {number} ({node.get('Name', name)[:40]!r})"
            collector.add(name, where, [[_points(path, node, where)]], title)
    return collector.collected


def _class_name(annotation: Element) -> str:
    group = annotation.get("PartOfGroup", "").strip()
    return UNCLASSIFIED if group in NO_GROUP else group


def _points(path: Path, annotation: Element, where: str) -> Points:
    """Return the corners of an annotation's outline."""
    nodes = sorted(annotation.iterfind("Coordinates/Coordinate"), key=_order)
    numbers = [[_number(path, node, axis, where) for axis in "XY"] for node in nodes]
    points = np.array(numbers, np.float64)
    if annotation.get("Type") == "Rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return points


def _order(coordinate: Element) -> int:
    """Return a point's rank in its outline; points without one keep the order of the file."""
    try:
        return int(coordinate.get("Order", "0"))
    except ValueError:
        return 0


def _number(path: Path, coordinate: Element, axis: str, where: str) -> float:
    text = coordinate.get(axis, "")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise AnnotationError(
            f"{path}: {where}: a coordinate's {axis} is {text[:40]!r}; it must be a number of "
            "pixels"
        )
    return number
