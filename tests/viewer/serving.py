"""A real server on loopback, and clients of it."""

from __future__ import annotations

import http.client
import io
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from support.labelled import write_store

from wsi_unet.slides.opening import open_slide
from wsi_unet.viewer.server import ServerOptions, Serving, view


class Answer(NamedTuple):
    """What a server answers."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a server as a page does."""

    def __init__(self, serving: Serving) -> None:
        address = urlsplit(serving.address)
        assert address.port is not None
        self.serving = serving
        self.port: int = address.port
        self.token = parse_qs(address.query)["token"][0]

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        token: str | None = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask for a path, as it is, with the token unless another is given."""
        given = self.token if token == "" else token
        known = {} if given is None else {"Authorization": f"Bearer {given}"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, known | dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def read_tile(self, path: str) -> NDArray[np.uint8]:
        """Return the pixels of a tile."""
        answer = self.ask(path)
        assert answer.status == 200, answer.body
        return np.asarray(Image.open(io.BytesIO(answer.body)))


@contextmanager
def serving(
    target: Path, slide: Path | None = None, options: ServerOptions | None = None
) -> Iterator[Client]:
    """Serve inside, in a thread; whatever ends the server early is raised."""
    started: list[Serving] = []
    ready = threading.Event()
    errors: list[BaseException] = []

    def start(serving: Serving) -> None:
        started.append(serving)
        ready.set()

    def run() -> None:
        given = None if slide is None else str(slide)
        try:
            view(str(target), given, options=options, on_start=start)
        except BaseException as error:
            errors.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    if errors:
        thread.join()
        raise errors[0]
    try:
        yield Client(started[0])
    finally:
        started[0].stop()
        thread.join()
    if errors:
        raise errors[0]


def write_slide(path: Path, shape: tuple[int, int], seed: int = 0) -> Path:
    """Write a slide of smooth colours that are different everywhere."""
    y, x = np.indices(shape)
    pixels = np.stack([y * 255 // shape[0], x * 255 // shape[1], (y + x + seed) // 8 % 256], -1)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def write_result(folder: Path, labels: NDArray[np.uint8], slide: Path, **options: Any) -> Path:
    """Write a result about a slide that is there."""
    with open_slide(slide) as opened:
        fingerprint, shape = opened.fingerprint(), opened.shape
    write_store(folder, labels, slide=fingerprint, slide_shape=shape, **options)
    return folder
