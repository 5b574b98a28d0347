"""Who may ask, what can be asked, and that nothing else gets through."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from distributed.security import Security
from support.clusters import until
from support.labelled import NamedValue, blobs
from viewer.serving import Client, serving, write_result, write_slide

from wsi_unet.errors import OptionError, OutputError
from wsi_unet.labels.layout import create_labels, ensure_root
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.pyramid import Pyramid
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.viewer.access import Access
from wsi_unet.viewer.server import ServerOptions
from wsi_unet_cli.main import cli

SHAPE = (700, 1100)
TILE = "/slides/0/picture/0/0/0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    above = tmp_path_factory.mktemp("above")
    (above / "secret.txt").write_text("secret")
    slide = write_slide(above / "slide.png", SHAPE)
    write_result(above / "a.ome.zarr", blobs(SHAPE), slide)
    return above


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    with serving(folder / "a.ome.zarr", folder / "slide.png") as client:
        yield client


@pytest.mark.parametrize(
    "path", ["/", "/slides/0/", "/page/slide.js", TILE, "/slides/0/description", "/nothing"]
)
def test_nothing_is_told_without_the_token(client: Client, path: str) -> None:
    for token in (None, "", "x", client.token[:-1], client.token + "x", "é"):
        given = {} if token is None else {"Cookie": f"wsi-unet-{client.port}={token}"}
        answer = client.ask(path, token=None, headers=given)
        assert answer.status == 403
        assert b"token" in answer.body
        assert client.token.encode() not in answer.body


def test_the_first_visit_gets_a_cookie_and_an_address_without_the_token(client: Client) -> None:
    answer = client.ask(f"/?token={client.token}", token=None)
    assert (answer.status, answer.headers["Location"]) == (302, "./")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    name_and_value = cookie.partition(";")[0]
    assert client.ask("/slides/0/", token=None, headers={"Cookie": name_and_value}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1:1", "", "x@localhost"]
)
def test_other_hosts_are_refused(client: Client, host: str) -> None:
    named = f"{host}:{client.port}" if host == "evil.example" else host
    assert client.ask(TILE, headers={"Host": named}).status in (400, 421)
    assert client.ask(TILE, headers={"Host": f"localhost:{client.port}"}).status == 200


def test_hosts_of_other_interfaces() -> None:
    access = Access("0.0.0.0", 8000)
    assert access.knows_host("192.168.1.5:8000")
    assert not access.knows_host("evil.example:8000")
    assert Access("viewer.example", 8000).knows_host("Viewer.example:8000")


def test_answers_forbid_what_the_page_does_not_need(client: Client) -> None:
    for path in ("/slides/0/", TILE, "/nothing", "/page/slide.js"):
        headers = client.ask(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Server" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/page/../secret.txt", "/page/%2e%2e/secret.txt", "/page/..%2fsecret.txt",
        "//etc/passwd", "/page//etc/passwd", "/page/%2Fetc%2Fpasswd", "/etc/passwd", "/page/",
        "/page/__init__.py", "/page/slide.js%00", "/slides/0/../../secret.txt", "/page/slide.js/",
        "/slides/1/", "/slides/0", "/slides/%30/", "/slides/-1/", "/slides/999999/description",
        "/slides/0/picture/4/0/0", "/slides/0/picture/0/9999999/9999999",
        "/slides/0/picture/99/0/0", "/slides/0/picture/0/-1/0", "/slides/0/picture/0/0/3",
        "/slides/0/picture/0/99999999999999999999/0", "/slides/0/classes/7/0/0/0?show=1&style=fill",
        "/slides/0/looks/999/0/0/0", "/slides/0/heat/0/0/0/0/0?threshold=1",
        "/slides/0/objects/0?box=0,0,1,1", "/slides/0/object/9?at=0,0", "/gallery", "/zarr.json",
    ],
)  # fmt: skip
def test_what_is_not_there(client: Client, path: str) -> None:
    answer = client.ask(path)
    assert answer.status == 404
    assert answer.body == b"not found\n"


@pytest.mark.parametrize(
    "path",
    [
        "/slides/0/classes/0/0/0/0", "/slides/0/classes/0/0/0/0?show=x&style=fill",
        "/slides/0/classes/0/0/0/0?show=1&style=nothing",
        "/slides/0/classes/0/0/0/0?show=999&style=fill",
        f"/slides/0/classes/0/0/0/0?style=fill&show={'1,' * 300}1",
        "/slides/0/heat/0/0/0/0/0?threshold=256", "/slides/0/objects/0?box=0,0,1",
        "/slides/0/objects/0?box=0,0,1,nan", "/slides/0/object/0?at=1e9,0",
        "/slides/0/objects/0?box=0,0,1,99999999999", "/slides/0/histogram/0?measurement=a&value=1",
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(client: Client, path: str) -> None:
    answer = client.ask(path)
    assert answer.status == 400
    assert answer.body == b"bad request\n"


def test_nothing_can_be_written(client: Client) -> None:
    for method in ("PUT", "DELETE", "PATCH", "POST", "OPTIONS"):
        assert client.ask(TILE, method, body=b"x").status == 405
    assert client.ask("/slides/0/regions").status == 405


def test_large_requests_are_refused(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(
            b"POST /slides/0/regions HTTP/1.1\r\nHost: localhost:%d\r\nAuthorization: Bearer %s\r\n"
            b"Content-Length: 999999999\r\n\r\n" % (client.port, client.token.encode())
        )
        connection.settimeout(20)
        assert b" 200 " not in connection.recv(100)
    with pytest.raises(ConnectionError):
        client.ask(TILE, headers={"X-Long": "x" * 100_000})
    assert client.ask(TILE).status == 200


def test_half_requests_keep_nobody_waiting(client: Client) -> None:
    half = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(30)]
    for number, each in enumerate(half):
        each.sendall(b"GET /slides/0/picture/0/0/0 HTTP/1.1\r\nHost: local"[: 10 + number])
    assert client.ask(TILE).status == 200
    for each in half:
        each.close()


def test_many_clients_leave_no_files_open(client: Client) -> None:
    client.ask("/slides/0/thumbnail")
    time.sleep(0.2)
    before = len([*Path("/proc/self/fd").iterdir()])
    paths = [
        f"/slides/0/{layer}/{zoom}/0/0{query}"
        for zoom in range(3)
        for layer, query in (
            ("picture", ""), ("looks/0", ""), ("classes/0", "?show=1,2&style=both")
        )
    ]  # fmt: skip
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(client.ask, paths * 50))
    assert {answer.status for answer in answers} == {200}
    for _ in range(100):  # sockets are closed a moment later
        if len([*Path("/proc/self/fd").iterdir()]) <= before:
            break
        time.sleep(0.05)
    assert len([*Path("/proc/self/fd").iterdir()]) <= before


def test_a_slide_that_goes_away_while_it_is_seen(folder: Path, tmp_path: Path) -> None:
    slide, result = tmp_path / "slide.png", tmp_path / "a.ome.zarr"
    shutil.copy(folder / "slide.png", slide)
    shutil.copytree(folder / "a.ome.zarr", result)
    with serving(result, slide) as client:
        slide.unlink()
        shutil.rmtree(result / "labels" / "nuclei" / "0")
        answer = client.ask("/slides/0/classes/0/0/0/0?show=1&style=fill")
        assert answer.status == 200
        assert client.read_tile("/slides/0/classes/0/0/0/0?show=1&style=fill")[..., 3].min() > 0
        (problem,) = client.ask("/slides/0/description").json["problems"]
        assert "labels/nuclei/0/c/" in problem
        assert client.ask("/slides/0/regions", "POST", body=b"{}").status == 422
        assert b"Traceback" not in client.ask("/slides/0/regions", "POST", body=b"{}").body
        shutil.rmtree(result)
        assert client.ask(TILE).status == 200


def test_ports_in_use_and_interfaces_that_are_not_there(folder: Path) -> None:
    with serving(folder / "slide.png") as client:
        for options, message in (
            (ServerOptions(port=client.port), "is in use; choose another `port`"),
            (ServerOptions(host="192.0.2.1"), "can't listen there"),
            (ServerOptions(tls_key="k.pem"), "`tls_key` needs `tls_cert`"),
            (ServerOptions(tls_cert=str(folder / "secret.txt")), "can't be used as certificate"),
        ):
            with (
                pytest.raises(OptionError, match=message),
                serving(folder / "slide.png", None, options),
            ):
                pass


def test_an_encrypted_connection(folder: Path, tmp_path: Path) -> None:
    security = Security.temporary()
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_text(security.tls_scheduler_cert)
    key.write_text(security.tls_scheduler_key)
    options = ServerOptions(tls_cert=str(certificate), tls_key=str(key))
    with serving(folder / "slide.png", None, options) as client:
        assert client.serving.address.startswith("https://")
        assert client.serving.notes == ()
        context = ssl.create_default_context(cadata=security.tls_ca_file)
        context.check_hostname = False  # the certificate is one of Dask's
        connection = http.client.HTTPSConnection("localhost", client.port, context=context)
        connection.request("GET", f"/?token={client.token}")
        answer = connection.getresponse()
        assert answer.status == 302
        assert "Secure" in (answer.headers["Set-Cookie"] or "")
        connection.close()


def test_other_interfaces_without_encryption_are_warned_of(folder: Path) -> None:
    with serving(folder / "slide.png", None, ServerOptions(host="0.0.0.0")) as client:
        assert "isn't encrypted" in client.serving.notes[0]
        assert client.ask(TILE, token=None).status == 403
        assert client.ask(TILE).status == 200


def test_what_cannot_be_shown(folder: Path, tmp_path: Path) -> None:
    other = write_slide(tmp_path / "other.png", SHAPE, seed=99)
    with (
        pytest.raises(OptionError, match="isn't the slide of the result"),
        serving(folder / "a.ome.zarr", other),
    ):
        pass
    broken = tmp_path / "broken.ome.zarr"
    shutil.copytree(folder / "a.ome.zarr", broken)
    shutil.rmtree(broken / "labels" / "nuclei")
    with pytest.raises(OutputError, match="is listed but missing"), serving(broken):
        pass


def test_labels_that_no_memory_holds_are_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "a.ome.zarr")
    ensure_root(store, {})
    frame = Frame.from_downsample((1.0, 1.0), None)
    classes = [NamedValue(0, "background"), NamedValue(1, "nucleus")]
    create_labels(store, "nuclei", Pyramid((1 << 26, 1 << 26), 512), frame, classes, {})
    with pytest.raises(OutputError, match="more than any slide"), serving(tmp_path / "a.ome.zarr"):
        pass


def test_a_result_cannot_name_another_file(folder: Path, tmp_path: Path) -> None:
    result = write_result(tmp_path / "b.ome.zarr", np.zeros(SHAPE, np.uint8), folder / "slide.png")
    run = result / ".wsi_unet" / "nuclei" / "run.json"
    other = write_slide(tmp_path / "private.png", SHAPE, seed=5)
    named = f'"parameters":{{"slide":{{"path":"{other}","reader":"auto","fingerprint":"x"}},'
    run.write_text(run.read_text().replace('"parameters":{', named))
    with serving(result) as client:
        assert "isn't where it was segmented" in client.serving.notes[0]
        assert client.ask("/slides/0/description").json["picture"] is False
        assert len(np.unique(client.read_tile(TILE))) == 1


def test_the_command_says_where_and_ends_with_ctrl_c(folder: Path) -> None:
    command = [sys.executable, "-c", "from wsi_unet_cli.main import main; main()", "view"]
    with subprocess.Popen(
        [*command, folder / "slide.png", "--no-open"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("view  http://127.0.0.1:")
        process.send_signal(2)
        assert process.wait(60) == 0
        assert process.stdout.read() == ""


def test_the_browser_is_told_by_a_private_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > "$0.told"; stat -c %a "${1#file://}" >> "$0.told"\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    monkeypatch.setenv("DISPLAY", ":7")
    command = [sys.executable, "-c", "from wsi_unet_cli.main import main; main()", "view"]
    with subprocess.Popen(
        [*command, folder / "slide.png"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        told = tmp_path / "browser.told"
        until(lambda: told.exists() and told.read_text().count("\n") == 2, "the browser starts")
        page, mode = told.read_text().split()
        assert page.startswith("file:///")
        assert address.rpartition("=")[2] not in page
        assert mode == "600"
        assert address in Path(page.removeprefix("file://")).read_text()
        process.send_signal(2)
        assert process.wait(60) == 0
    assert not Path(page.removeprefix("file://")).exists()


def test_the_command_explains_what_is_not_there(folder: Path, tmp_path: Path) -> None:
    for target in (tmp_path / "nothing.ome.zarr", tmp_path):
        done = CliRunner().invoke(cli, ["view", str(target), "--no-open"])
        assert done.exit_code == 2
        assert done.output.startswith("error: ")
        assert done.output.count("\n") == 1
