"""A server that speaks S3 (moto's), as a process of its own on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SERVE = """
import json, logging, sys, threading
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

# S3 looks at a condition and puts the object in one step; moto, asked by many at once, in two.
put, one_at_a_time = S3Response.put_object, threading.Lock()
def put_atomically(self):
    with one_at_a_time:
        return put(self)
S3Response.put_object = put_atomically

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(json.dumps(server.get_host_and_port()), flush=True)
sys.stdin.read()  # until whoever started this is gone
"""

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
FILES = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE")
"""Environment variables that name the files of AWS's tools in ~/.aws."""


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint: "http://127.0.0.1:port".
    """

    endpoint: str

    def make_bucket(self, name: str, *, public: bool = False) -> str:
        """Make a bucket and return its URL."""
        self._ask("PUT", f"/{name}", headers={"x-amz-acl": "public-read"} if public else {})
        return f"s3://{name}"

    def put_public(self, url: str, key: str, data: bytes) -> None:
        """Put an object that everybody may read."""
        path = f"{url.removeprefix('s3:/')}/{key}"
        self._ask("PUT", path, data, {"x-amz-acl": "public-read"})

    @contextmanager
    def checking_credentials(self) -> Iterator[None]:
        """Let the server refuse requests of unknown users inside."""
        self._ask("POST", "/moto-api/reset-auth", b"0")
        try:
            yield
        finally:
            self._ask("POST", "/moto-api/reset-auth", b"inf")

    def _ask(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        headers = {"content-type": "application/octet-stream", **(headers or {})}
        request = urllib.request.Request(self.endpoint + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: bytes = answer.read()
            return found


@contextmanager
def running_server() -> Iterator[S3Server]:
    """Run a server; it ends with this process, however that ends."""
    command = [sys.executable, "-c", SERVE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        host, port = json.loads(process.stdout.readline())
        try:
            yield S3Server(f"http://{host}:{port}")
        finally:
            process.stdin.close()
            process.wait(timeout=30)
