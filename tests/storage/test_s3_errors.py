"""Every failure of a bucket becomes one line, without long waits."""

from __future__ import annotations

import builtins
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.proxy import Proxy, Request
from support.s3_server import S3Server

from wsi_unet.storage.s3 import client
from wsi_unet.storage.s3.client import Bucket, open_bucket

ASKED: dict[str, Callable[[Bucket], object]] = {
    "get": lambda bucket: bucket.get("key"),
    "get_first": lambda bucket: bucket.get_first("key", 10),
    "put": lambda bucket: bucket.put("key", b"data"),
    "create": lambda bucket: bucket.create("key", b"data"),
    "replace": lambda bucket: bucket.replace("key", b"data", '"tag"'),
    "list": lambda bucket: list(bucket.list("")),
    "delete_all": lambda bucket: bucket.delete_all("key"),
}


def refused(bucket: Bucket, asked: Callable[[Bucket], object], match: str) -> OSError:
    with pytest.raises(OSError, match=match) as caught:
        asked(bucket)
    assert caught.value.strerror is not None
    assert "\n" not in caught.value.strerror
    return caught.value


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow two retries, in quick succession."""
    monkeypatch.setattr(client, "RETRIES", 2)
    monkeypatch.setattr(client, "FIRST_PAUSE", timedelta(milliseconds=20))


@pytest.mark.parametrize("asked", [name for name in ASKED if name != "replace"])
def test_a_missing_bucket(s3: S3Server, asked: str) -> None:
    bucket = open_bucket("s3://no-such-bucket/folder")
    error = refused(bucket, ASKED[asked], rf"there is no bucket 'no-such-bucket' at {s3.endpoint}")
    assert isinstance(error, FileNotFoundError)


@pytest.mark.parametrize("asked", ["get", "get_first", "put"])
def test_a_forbidden_bucket(bucket: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_bucket(bucket).put("key", b"secret")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    error = refused(open_bucket(bucket), ASKED[asked], "access is denied .*AWS_ACCESS_KEY_ID")
    assert isinstance(error, PermissionError)


@pytest.mark.parametrize("asked", ["list", "delete_all"])
def test_a_bucket_that_may_not_be_listed(bucket: str, s3_proxy: Proxy, asked: str) -> None:
    s3_proxy.spoil = lambda request: 403  # moto lets everybody list
    refused(open_bucket(bucket), ASKED[asked], r"access is denied \(403\).*listing")


def test_a_public_bucket_needs_no_credentials(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = s3.make_bucket("public-bucket", public=True)
    s3.put_public(url, "key", b"data")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    found = open_bucket(url).get("key")
    assert found is not None
    assert found.data == b"data"


@pytest.mark.parametrize("asked", ["get", "put", "list"])
def test_credentials_that_nobody_knows(s3: S3Server, bucket: str, asked: str) -> None:
    with s3.checking_credentials():
        error = refused(
            open_bucket(bucket),
            ASKED[asked],
            r"credentials are refused \(InvalidAccessKeyId\); check",
        )
    assert isinstance(error, PermissionError)


def test_no_credentials_at_all(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    refused(
        open_bucket(bucket), ASKED["get"], "no credentials found; set AWS_ACCESS_KEY_ID.*AWS_SKIP_"
    )


@pytest.mark.usefixtures("s3", "few_tries")
@pytest.mark.parametrize("asked", ["get", "put", "list"])
def test_an_endpoint_where_nobody_is(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    match = rf"http://127.0.0.1:{port} can't be reached \(Connection refused\), after 3 tries; "
    assert isinstance(refused(open_bucket("s3://bucket"), ASKED[asked], match), ConnectionError)


@pytest.mark.usefixtures("s3", "few_tries")
def test_an_endpoint_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://no-such-host.invalid")
    refused(
        open_bucket("s3://bucket"),
        ASKED["get"],
        r"no-such-host\.invalid can't be reached \(no such",
    )


def test_an_empty_object_has_ends(bucket: str) -> None:
    bucket_keys = open_bucket(bucket)
    bucket_keys.put("key", b"")
    for end in (bucket_keys.get_first, bucket_keys.get_last):
        found = end("key", 10)
        assert found is not None
        assert (found.data, found.size) == (b"", 0)
        assert end("no such key", 10) is None
    refused(bucket_keys, lambda keys: keys.get_range("key", 3, 9, None), "has no such bytes")


@pytest.mark.usefixtures("few_tries")
@pytest.mark.parametrize("asked", ["get", "get_first", "put", "list"])
def test_a_server_that_never_answers(
    bucket: str, s3_proxy: Proxy, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TIMEOUT", timedelta(seconds=0.3))
    s3_proxy.spoil = lambda request: "hang"
    begin = time.monotonic()
    error = refused(
        open_bucket(bucket), ASKED[asked], r"doesn't answer in time, after 3 tries; check"
    )
    assert isinstance(error, TimeoutError)
    assert len(s3_proxy.requests) == 3
    assert time.monotonic() - begin < 10


@pytest.mark.usefixtures("few_tries")
@pytest.mark.parametrize("asked", ["get", "put", "create", "list", "delete_all"])
def test_a_server_that_is_busy_for_ever(bucket: str, s3_proxy: Proxy, asked: str) -> None:
    s3_proxy.spoil = lambda request: 503
    refused(open_bucket(bucket), ASKED[asked], r"answers 503, after 3 tries; try again later")
    assert len(s3_proxy.requests) == 3


@pytest.mark.parametrize("spoilt", [503, 500, "drop"])
@pytest.mark.parametrize("asked", ["get", "put", "list", "delete_all"])
def test_a_server_that_is_busy_for_a_while(
    bucket: str, s3_proxy: Proxy, asked: str, spoilt: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", timedelta(milliseconds=20))
    open_bucket(bucket).put("key", b"data")
    s3_proxy.forget()
    s3_proxy.spoil = lambda request: spoilt if len(s3_proxy.requests) < 4 else None
    ASKED[asked](open_bucket(bucket))
    assert len(s3_proxy.requests) >= 4


def test_an_answer_that_breaks_off_is_read_again(bucket: str, s3_proxy: Proxy) -> None:
    data = os.urandom(1 << 20)
    open_bucket(bucket).put("key", data)
    s3_proxy.forget()
    s3_proxy.spoil = lambda request: "cut" if len(s3_proxy.requests) < 3 else None
    found = open_bucket(bucket).get_range("key", 1000, 1 << 20, None)
    assert found is not None
    assert found.data == data[1000:]


def test_another_object_of_the_same_name_is_noticed(bucket: str) -> None:
    bucket_keys = open_bucket(bucket)
    bucket_keys.put("key", b"one thing")
    found = bucket_keys.get_first("key", 3)
    assert found is not None
    bucket_keys.put("key", b"another")
    refused(
        bucket_keys,
        lambda keys: keys.get_range("key", 3, 6, found.tag),
        "was changed while it was read",
    )


def test_a_lost_answer_is_no_second_put(bucket: str, s3_proxy: Proxy) -> None:
    """The store put it but said that it failed: asked again, it says that there is one."""

    def lose_first(request: Request) -> str | None:
        return "lose" if request.method == "PUT" and len(s3_proxy.requests) == 1 else None

    s3_proxy.spoil = lose_first
    assert not open_bucket(bucket).create("key", b"mine")
    found = open_bucket(bucket).get("key")
    assert found is not None
    assert found.data == b"mine"


@pytest.mark.usefixtures("s3")
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.split(".")[0] == "obstore":
            monkeypatch.delitem(sys.modules, name)
    original: Callable[..., Any] = builtins.__import__

    def without_it(name: str, *rest: Any, **options: Any) -> Any:
        if name.split(".")[0] == "obstore":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_it)
    refused(open_bucket("s3://bucket"), ASKED["get"], r"pip install 'wsi-unet\[s3\]'")


def _get(url: str, answers: Any) -> None:
    try:
        found = open_bucket(url).get("key")
        answers.put(None if found is None else found.data)
    except OSError as error:
        answers.put(error.strerror)


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_processes(bucket: str, method: str) -> None:
    """Spawned ones read; forked ones, which would wait for ever, are refused."""
    open_bucket(bucket).put("key", b"data")
    context: Any = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=_get, args=(bucket, answers))
    process.start()
    try:
        answer = answers.get(timeout=30)
    finally:
        process.join(30)
    if method == "spawn":
        assert answer == b"data"
    else:
        assert "a forked process can't use buckets" in answer


def test_a_profile_is_asked(
    s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys, region and endpoint of a profile in ~/.aws count where the environment names none."""
    (tmp_path / "credentials").write_text(
        "[work]\naws_access_key_id = her\naws_secret_access_key = secret\n"
    )
    (tmp_path / "config").write_text(
        f"[profile work]\nregion = eu-west-3\nendpoint_url = {s3.endpoint}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    open_bucket(bucket).put("key", b"data")
    assert list(open_bucket(bucket).list("")) == [("key", 4)]
    monkeypatch.setenv("AWS_PROFILE", "play")
    refused(open_bucket(bucket), ASKED["get"], r"~/\.aws can't be used: .*play")


def test_the_environment_decides_who_asks(
    bucket: str, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is signed names the key and the region; a session's token goes along."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "for an hour")
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    open_bucket(bucket).get("key")
    (request,) = s3_proxy.requests
    assert "Credential=somebody/" in request.headers["authorization"]
    assert "/eu-central-1/s3/" in request.headers["authorization"]
    assert request.headers["x-amz-security-token"] == "for an hour"
