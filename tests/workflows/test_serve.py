"""The server for viewers: ranges, cross-origin headers, and nothing outside the folder."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

SERVE = Path(__file__).resolve().parents[2] / "workflows" / "serve.py"
CONTENT = bytes(range(256)) * 20
VIEWER = "https://biongff.github.io"


def write_result(folder: Path) -> None:
    """Write a store with the metadata of a result, and one shard."""
    step = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    axes = [{"name": "c"}, {"name": "y", "unit": "micrometer"}, {"name": "x", "unit": "micrometer"}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": step}]}
    colors = [
        {"label-value": 0, "rgba": [0, 0, 0, 0]},
        {"label-value": 1, "rgba": [255, 215, 0, 9]},
    ]
    for below, content in {
        "zarr.json": {"attributes": {"ome": {"multiscales": [image]}}},
        "0/zarr.json": {"shape": [3, 1600, 800]},
        "labels/zarr.json": {"attributes": {"ome": {"labels": ["nuclei-he"]}}},
        "labels/nuclei-he/zarr.json": {"attributes": {"ome": {"image-label": {"colors": colors}}}},
    }.items():
        (folder / below).parent.mkdir(parents=True, exist_ok=True)
        (folder / below).write_text(json.dumps(content))
    (folder / "0" / "c").write_bytes(CONTENT)
    (folder / ".wsi_unet").mkdir()
    (folder / ".wsi_unet" / "lock.json").write_text("{}")


class Viewer:
    """A client that asks a server on loopback as a page in a browser does."""

    def __init__(self, said: str) -> None:
        self.said = said
        self.port = int(said.rsplit("127.0.0.1:", 1)[1].split("/")[0])

    def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    above = tmp_path_factory.mktemp("above")
    (above / "secret").write_text("not for viewers")
    write_result(above / "my results" / "a.ome.zarr")
    (above / "my results" / "leads-out").symlink_to(above / "secret")
    with subprocess.Popen(
        [sys.executable, SERVE, above / "my results", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        while "until Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        yield Viewer(said)
        process.terminate()


STORE = "/my%20results/a.ome.zarr"


def test_sends_files_and_ranges(viewer: Viewer) -> None:
    shard = f"{STORE}/0/c"
    assert viewer.ask(shard)[::2] == (200, CONTENT)
    for asked, expected in {
        "bytes=0-9": CONTENT[:10],
        "bytes=5000-": CONTENT[5000:],
        "bytes=-16": CONTENT[-16:],
        "bytes=5100-9999": CONTENT[5100:],
    }.items():
        status, headers, body = viewer.ask(shard, Range=asked)
        start = CONTENT.index(expected) if asked == "bytes=0-9" else len(CONTENT) - len(expected)
        assert (status, body) == (206, expected)
        assert headers["Content-Range"] == f"bytes {start}-{start + len(body) - 1}/{len(CONTENT)}"
    status, headers, body = viewer.ask(shard, "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(CONTENT)))
    status, headers, _ = viewer.ask(shard, Range=f"bytes={len(CONTENT)}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")
    assert viewer.ask(shard, Range="bytes=0-1,4-5")[::2] == (200, CONTENT)


def test_only_pages_of_the_viewers_may_read(viewer: Viewer) -> None:
    path = f"{STORE}/zarr.json"
    _, headers, _ = viewer.ask(path, Origin=VIEWER)
    assert headers["Access-Control-Allow-Origin"] == VIEWER
    assert "Content-Range" in headers["Access-Control-Expose-Headers"]
    _, headers, _ = viewer.ask(path, Origin="https://elsewhere.example")
    assert headers["Access-Control-Allow-Origin"] is None
    status, headers, _ = viewer.ask(path, "OPTIONS", Origin=VIEWER)
    assert (status, headers["Access-Control-Allow-Headers"]) == (204, "Range")
    assert viewer.ask(path, Host="elsewhere.example")[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/secret",
        "/my%20results/../secret",
        "/my%20results/%2e%2e/secret",
        "/my%20results/..%2fsecret",
        "/my%20results/leads-out",
        f"{STORE}/.wsi_unet/lock.json",
        f"{STORE}/0",
        "/my%20results/",
        "/",
        "/%00",
    ],
)
def test_serves_nothing_but_the_folder(viewer: Viewer, path: str) -> None:
    assert viewer.ask(path)[::2] == (404, b"")


def test_writes_nothing(viewer: Viewer) -> None:
    assert viewer.ask(f"{STORE}/0/c", "PUT")[0] == 501


def test_prints_an_address_per_viewer(viewer: Viewer) -> None:
    addresses = [word for word in viewer.said.split() if word.startswith("https://")]
    url = f"http://127.0.0.1:{viewer.port}{STORE}"
    vizarr, neuroglancer = (urlsplit(address) for address in addresses)
    assert parse_qs(vizarr.query) == {"source": [unquote(url)]}
    state = json.loads(unquote(neuroglancer.fragment.removeprefix("!")))
    image, labels = state["layers"]
    assert image["source"]["url"] == f"zarr://{url}/"
    assert image["source"]["transform"]["outputDimensions"]["x"] == [0.5e-6, "m"]
    assert "emitRGB" in image["shader"]
    assert labels["source"] == f"zarr://{url}/labels/nuclei-he/"
    assert labels["segmentColors"] == {"1": "#ffd700"}
    assert viewer.ask(f"{urlsplit(labels['source'][7:]).path}zarr.json")[0] == 200


def test_refuses_other_paths_than_folders(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SERVE, tmp_path / "missing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "isn't a folder" in done.stderr
