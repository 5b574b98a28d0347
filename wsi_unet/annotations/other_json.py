"""Recognising JSON documents that are no GeoJSON, so that a message can say what to do."""

from __future__ import annotations

from typing import Any

from wsi_unet.annotations.class_names import suggest_names

_EXPORT = "export the annotations as GeoJSON"
KNOWN = (
    ({"images", "annotations", "categories"}, f"it looks like COCO annotations; {_EXPORT}"),
    ({"shapes", "imagePath"}, f"it looks like labelme's annotations; {_EXPORT}"),
    ({"_via_img_metadata"}, f"it looks like a VIA project; {_EXPORT}"),
    ({"annotation"}, f"it looks like an annotation of the Digital Slide Archive; {_EXPORT}"),
    ({"elements"}, f"it looks like an annotation of the Digital Slide Archive; {_EXPORT}"),
    ({"nuc"}, "it looks like nuclei of HoVer-Net; convert its contours to GeoJSON polygons"),
    ({"images", "version"}, f"it looks like a QuPath project; {_EXPORT} in QuPath"),
    ({"geometryType"}, f"it looks like Esri JSON; {_EXPORT}"),
    ({"format_version"}, "it looks like a document that wsi-unet wrote; give the annotations"),
)
"""Keys that tell what a document is, and what to say about it; the first that fit count."""
TYPES = {"Topology": f"it looks like TopoJSON; {_EXPORT}"}
GEOJSON_TYPES = (
    "FeatureCollection",
    "Feature",
    "Polygon",
    "MultiPolygon",
    "GeometryCollection",
)
MOST_KEYS = 5
"""Keys that are listed of a document that isn't recognised."""


def describe_json(document: dict[str, Any]) -> str:
    """Return what a JSON object that isn't GeoJSON looks like, and what to do.

    >>> describe_json({"shapes": [], "imagePath": "a.png"})
    "it looks like labelme's annotations; export the annotations as GeoJSON"
    >>> describe_json({"type": "polygon"})
    "its type is 'polygon'; did you mean 'Polygon' or 'MultiPolygon'?"
    """
    kind = document.get("type")
    if isinstance(kind, str) and kind in TYPES:
        return TYPES[kind]
    for keys, description in KNOWN:
        if keys <= document.keys():
            return description
    if isinstance(kind, str):
        return f"its type is {kind[:40]!r}{suggest_names(kind[:40], GEOJSON_TYPES)}"
    if not document:
        return f"it is an empty object; {_EXPORT}"
    names = ", ".join([repr(key[:40]) for key in document][:MOST_KEYS])
    more = ", …" if len(document) > MOST_KEYS else ""
    return f"it has no type, and the keys {names}{more}; {_EXPORT}"
