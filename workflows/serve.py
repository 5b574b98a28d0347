"""Serve a folder of results to viewers that run in a browser on this machine.

    python workflows/serve.py results/

It prints an address per result and viewer and serves until Ctrl-C. It answers this machine only
(127.0.0.1), and only pages of the viewers it knows; `--origin` allows another. Files are read-only;
hidden ones, and links that lead out of the folder, aren't served.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, unquote, urlsplit

VIZARR = "https://biongff.github.io/vizarr/"
NEUROGLANCER = "https://neuroglancer-demo.appspot.com/"
RGB_SHADER = (
    "void main(){emitRGB(vec3(toNormalized(getDataValue(0)),"
    "toNormalized(getDataValue(1)),toNormalized(getDataValue(2))));}"
)
PIECE = 1 << 20  # bytes sent at a time


class Range(NamedTuple):
    """Bytes `start` to `stop` of a file, without `stop`."""

    start: int
    stop: int


def parse_range(header: str | None, size: int) -> Range | None:
    """Return the bytes that a Range header asks for of a file of `size` bytes.

    Returns:
        None if the whole file is to be sent: no header, or one that isn't a single range.

    Raises:
        ValueError: the range has no byte in the file.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= stop:
        raise ValueError(header)
    return Range(start, stop)


def find_file(root: Path, path: str) -> Path | None:
    """Return the file that a URL's path names below `/<name of root>/`, or None.

    Args:
        root: the served folder, resolved.
        path: path of the request, still percent-encoded.
    """
    parts = unquote(urlsplit(path).path).lstrip("/").split("/")
    if parts[0] != root.name or any(part.startswith(".") or "\0" in part for part in parts):
        return None
    file = root.joinpath(*parts[1:]).resolve()
    return file if file.is_relative_to(root) and file.is_file() else None


class Server(ThreadingHTTPServer):
    """Serves one folder on the loopback interface."""

    daemon_threads = True

    def __init__(self, root: Path, port: int, origins: set[str]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.root = root
        self.origins = origins

    @property
    def url(self) -> str:
        """Address of the served folder."""
        return f"http://127.0.0.1:{self.server_port}/{quote(self.root.name)}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore viewers that have closed the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    """Answers GET, HEAD, and the OPTIONS that browsers send before them."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Send a file or the requested range of it."""
        self._send(with_body=True)

    def do_HEAD(self) -> None:
        """Send the headers that GET would send."""
        self._send(with_body=False)

    def do_OPTIONS(self) -> None:
        """Send which requests pages of the viewers may make."""
        self.send_response(HTTPStatus.NO_CONTENT)
        self.send_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.send_header("Access-Control-Allow-Headers", "Range")
        self.send_header("Access-Control-Allow-Private-Network", "true")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def end_headers(self) -> None:
        """Add the headers that let pages of the allowed origins read the answer."""
        origin = self.headers.get("Origin")
        if origin in self.server.origins:
            self.send_header("Access-Control-Allow-Origin", origin)
            self.send_header(
                "Access-Control-Expose-Headers", "Accept-Ranges, Content-Length, Content-Range"
            )
        self.send_header("Vary", "Origin")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: viewers ask for thousands of parts."""

    def _send(self, *, with_body: bool) -> None:
        file = find_file(self.server.root, self.path) if self._is_addressed() else None
        if file is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            try:
                part = parse_range(self.headers.get("Range"), size)
            except ValueError:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"bytes */{size}")
                return
            start, stop = part or Range(0, size)
            self.send_response(HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK)
            if part:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            kind = "application/json" if file.suffix == ".json" else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Cache-Control", "no-cache")  # a run may still be writing
            self.end_headers()
            if with_body:
                opened.seek(start)
                self._copy(opened, stop - start)

    def _copy(self, opened: BinaryIO, length: int) -> None:
        """Send the next `length` bytes of a file."""
        while length and (piece := opened.read(min(length, PIECE))):
            self.wfile.write(piece)
            length -= len(piece)

    def _refuse(self, status: HTTPStatus, content_range: str | None = None) -> None:
        self.send_response(status)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _is_addressed(self) -> bool:
        """Return whether the Host header names this machine, which guards against DNS rebinding."""
        return urlsplit(f"//{self.headers.get('Host', '')}").hostname in ("127.0.0.1", "localhost")


def find_results(root: Path) -> Iterator[Path]:
    """Yield the results in a folder that have an image; the folder itself, if it is one."""
    for folder in (root, *sorted(root.glob("*.ome.zarr"))):
        if "multiscales" in read_ome(folder):
            yield folder


def read_ome(folder: Path) -> dict[str, Any]:
    """Return the OME metadata of a Zarr group, empty if it has none."""
    try:
        group = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
    ome: dict[str, Any] = group.get("attributes", {}).get("ome", {})
    return ome


def vizarr_address(url: str) -> str:
    """Return the page of vizarr that shows the result at a URL."""
    return f"{VIZARR}?source={url}"


def neuroglancer_address(url: str, result: Path) -> str:
    """Return the page of neuroglancer that shows the result at a URL with its labels."""
    state = json.dumps(neuroglancer_state(url, result), separators=(",", ":"))
    return f"{NEUROGLANCER}#!{quote(state)}"


def neuroglancer_state(url: str, result: Path) -> dict[str, Any]:
    """Return neuroglancer's state: the image in its colours, and a layer per label group."""
    image = read_ome(result)["multiscales"][0]
    level = image["datasets"][0]["path"]
    shape = json.loads((result / level / "zarr.json").read_text(encoding="utf-8"))["shape"]
    _, *scale = image["datasets"][0]["coordinateTransformations"][0]["scale"]  # c, y, x
    micrometres = image["axes"][-1].get("unit") == "micrometer"
    y, x = ([step * 1e-6, "m"] if micrometres else [step, ""] for step in scale)
    layers = [
        {
            "type": "image",
            "name": "slide",
            "source": {
                "url": f"zarr://{url}/",
                # The shader only sees all channels of a pixel at once along a "^" dimension.
                "transform": {"outputDimensions": {"c^": [1, ""], "y": y, "x": x}},
            },
            "shader": RGB_SHADER,
        }
    ]
    for name in read_ome(result / "labels").get("labels", []):
        colors = read_ome(result / "labels" / name).get("image-label", {}).get("colors", [])
        layers.append(
            {
                "type": "segmentation",
                "name": name,
                "source": f"zarr://{url}/labels/{quote(name)}/",
                "segmentColors": {
                    str(color["label-value"]): "#" + bytes(color["rgba"][:3]).hex()
                    for color in colors
                    if color["label-value"]
                },
            }
        )
    return {
        "dimensions": {"x": x, "y": y},
        "crossSectionScale": max(shape) / 800,  # pixels of the image per pixel of the screen
        "layers": layers,
        "layout": "xy",
    }


def main() -> None:
    """Serve the folder given on the command line."""
    parser = argparse.ArgumentParser(
        description="Serve results to viewers in this machine's browser."
    )
    parser.add_argument("folder", type=Path, help="a result, or a folder of results")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one; default 8000")
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        help="allow another viewer, like http://localhost:9000",
    )
    given = parser.parse_args()
    root: Path = given.folder.resolve()
    if not root.is_dir():
        parser.error(f"{given.folder} isn't a folder")
    origins = {"{0.scheme}://{0.netloc}".format(urlsplit(page)) for page in (VIZARR, NEUROGLANCER)}
    with Server(root, given.port, origins | set(given.origin)) as server:
        for result in find_results(root):
            url = server.url + "".join(f"/{quote(part)}" for part in result.relative_to(root).parts)
            print(f"{result.name}\n  vizarr        {vizarr_address(url)}")
            print(f"  neuroglancer  {neuroglancer_address(url, result)}")
        print(f"serving {root} at {server.url}/ until Ctrl-C", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
