"""TLS for real: certificates made here, an encrypted scheduler and worker, and every refusal."""

from __future__ import annotations

import gc
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import dask
import pytest
from support.clusters import scheduler, worker

from wsi_unet.dask_cluster import connection
from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.file_visibility import check_paths
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.workers import count_workers
from wsi_unet.errors import OptionError

TLS = "DASK_DISTRIBUTED__COMM__TLS__"


class TlsFiles(TypedDict):
    """The TLS options of the command."""

    tls_ca: str
    tls_cert: str
    tls_key: str


@dataclass(frozen=True)
class Certificates:
    """A CA and what it has signed, as files."""

    ca: str
    cert: str
    key: str

    @property
    def options(self) -> TlsFiles:
        return {"tls_ca": self.ca, "tls_cert": self.cert, "tls_key": self.key}

    @property
    def arguments(self) -> tuple[str, ...]:
        """Options of `dask scheduler` and `dask worker`."""
        return ("--tls-ca-file", self.ca, "--tls-cert", self.cert, "--tls-key", self.key)


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def make_certificates(folder: Path) -> Certificates:
    """Make a CA and one certificate for everyone, as Dask's documentation has it."""
    folder.mkdir()
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    ca, key, cert = (folder / name for name in ("ca.pem", "key.pem", "cert.pem"))
    openssl(
        *("req", "-x509", *curve, "-days", "2", "-subj", f"/CN={folder.name} CA"),
        *("-keyout", folder / "ca-key.pem", "-out", ca),
    )
    request = folder / "request.pem"
    openssl("req", *curve, "-subj", "/CN=cluster", "-keyout", key, "-out", request)
    openssl(
        *("x509", "-req", "-in", request, "-CA", ca, "-CAkey", folder / "ca-key.pem"),
        *("-days", "2", "-set_serial", "1", "-out", cert),
    )
    return Certificates(str(ca), str(cert), str(key))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates") / "ours")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates") / "foreign")


@pytest.fixture(scope="module")
def encrypted(ours: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a cluster that accepts TLS only."""
    folder = tmp_path_factory.mktemp("encrypted")
    arguments = ("--protocol", "tls", *ours.arguments)
    with scheduler(folder, *arguments) as address, worker(address, *arguments):
        assert address.startswith("tls://")
        yield address


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a scheduler without TLS."""
    with scheduler(tmp_path_factory.mktemp("plain")) as address:
        yield address


def refusal(options: ClusterOptions) -> str:
    with pytest.raises(OptionError) as raised, open_client(options):
        pass
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("protocol", ["tls://", ""])
def test_a_run_over_tls(encrypted: str, ours: Certificates, protocol: str, tmp_path: Path) -> None:
    address = protocol + encrypted.removeprefix("tls://")
    with open_client(ClusterOptions(scheduler=address, **ours.options)) as client:
        assert count_workers(client).processes == 1
        assert client.submit(abs, -21).result() == 21
        check_paths(client, readable=[ours.ca], writable=[str(tmp_path)])
        cipher = client.run_on_scheduler(
            lambda dask_scheduler: [
                comm.comm.extra_info["cipher"] for comm in dask_scheduler.client_comms.values()
            ]
        )
        assert cipher[0][1].startswith("TLS")


def test_the_key_may_be_in_the_certificates_file(
    encrypted: str, ours: Certificates, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_text(Path(ours.cert).read_text() + Path(ours.key).read_text())
    options = ClusterOptions(scheduler=encrypted, tls_ca=ours.ca, tls_cert=str(both))
    with open_client(options) as client:
        assert client.submit(abs, -1).result() == 1


def test_dasks_own_configuration_will_do(
    encrypted: str, ours: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{TLS}CA_FILE", ours.ca)
    monkeypatch.setenv(f"{TLS}CLIENT__CERT", ours.cert)
    monkeypatch.setenv(f"{TLS}CLIENT__KEY", ours.key)
    dask.config.refresh()
    try:
        with open_client(ClusterOptions(scheduler=encrypted)) as client:
            assert client.submit(abs, -1).result() == 1
    finally:
        monkeypatch.undo()
        dask.config.refresh()


def test_certificates_of_somebody_else(encrypted: str, foreign: Certificates) -> None:
    message = refusal(ClusterOptions(scheduler=encrypted, **foreign.options))
    assert message.startswith(f"no Dask scheduler answers at {encrypted} (self-signed cert")
    assert message.endswith("`tls_ca`, `tls_cert` and `tls_key` belong to its cluster")


def test_a_certificate_that_the_scheduler_does_not_know(
    encrypted: str, ours: Certificates, foreign: Certificates
) -> None:
    options: TlsFiles = {**foreign.options, "tls_ca": ours.ca}
    message = refusal(ClusterOptions(scheduler=encrypted, **options))
    assert message.startswith(f"no Dask scheduler answers at {encrypted} (")
    assert message.endswith("`tls_ca`, `tls_cert` and `tls_key` belong to its cluster")


def test_no_certificates_for_an_encrypted_scheduler(encrypted: str) -> None:
    message = refusal(ClusterOptions(scheduler=encrypted))
    assert message.startswith(f"{encrypted} needs certificates: give `tls_ca`, `tls_cert` and")


def test_the_plain_address_of_an_encrypted_scheduler(
    encrypted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = encrypted.replace("tls://", "tcp://")
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    message = refusal(ClusterOptions(scheduler=address))
    assert message.startswith(f"no Dask scheduler answers at {address} (")
    assert message.endswith("or use its tls:// address if it wants TLS")


def test_certificates_for_a_plain_address(plain: str, ours: Certificates) -> None:
    message = refusal(ClusterOptions(scheduler=plain, **ours.options))
    start = f"the scheduler's address {plain} isn't encrypted, but TLS files are given"
    assert message.startswith(start)


def test_encryption_that_dasks_configuration_requires(plain: str) -> None:
    with dask.config.set({"distributed.comm.require-encryption": True}):
        assert "but TLS files are given" in refusal(ClusterOptions(scheduler=plain))


# A scheduler that speaks before the handshake lets Tornado drop the socket without closing it.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_plain_scheduler_at_a_tls_address(plain: str, ours: Certificates) -> None:
    address = plain.replace("tcp://", "tls://")
    message = refusal(ClusterOptions(scheduler=address, **ours.options))
    assert message.startswith(f"no Dask scheduler answers at {address} (")
    assert "; start one with `dask scheduler`, check that it speaks TLS, and that" in message
    gc.collect()  # here, not in a test that would be blamed


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("tls_ca", r"the TLS files can't be used \(.*\): CA \S+broken.pem"),
        ("tls_cert", r"the TLS files can't be used \(.*\): CA .* certificate \S+broken.pem"),
        ("tls_key", r"the TLS files can't be used \(.*\): CA .* key \S+broken.pem"),
    ],
)
def test_files_that_hold_something_else(
    ours: Certificates, broken: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.pem").write_text("no certificate\n")
    options: TlsFiles = {**ours.options, broken: str(tmp_path / "broken.pem")}  # type: ignore[misc]
    assert re.match(message, refusal(ClusterOptions(scheduler="tls://127.0.0.1:1", **options)))


def test_a_key_of_another_certificate(ours: Certificates, foreign: Certificates) -> None:
    options: TlsFiles = {**ours.options, "tls_key": foreign.key}
    message = refusal(ClusterOptions(scheduler="tls://127.0.0.1:1", **options))
    assert "KEY_VALUES_MISMATCH" in message


def test_a_file_that_is_not_there(ours: Certificates, tmp_path: Path) -> None:
    options: TlsFiles = {**ours.options, "tls_key": str(tmp_path / "none.pem")}
    message = refusal(ClusterOptions(scheduler="tls://127.0.0.1:1", **options))
    assert (
        message == f"the TLS file {tmp_path / 'none.pem'} can't be read: No such file or directory"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tls_ca": "ca.pem"}, "TLS files are for an existing cluster; give its `scheduler` too"),
        (
            {"scheduler": "h:1", "tls_key": "k"},
            "`tls_key` needs its certificate; give `tls_cert`",
        ),
    ],
)
def test_half_of_what_is_needed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ClusterOptions(**options)
