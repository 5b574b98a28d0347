"""Fixtures that all test folders share: paths of the real slides, and an object store."""

from __future__ import annotations

import os

# Test processes share two cores. OpenMP's threads would wait for each other by spinning, which
# takes the cores from those waited for: tiny networks then run an eighth as fast. Set before torch
# is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support import (
    unsynced,  # noqa: F401 (importing it changes what files wait for)
    warm,
)
from support.locks import release_all
from support.proxy import Proxy, running_proxy
from support.s3_server import FILES, KEYS, S3Server, running_server

ROOT = Path(__file__).resolve().parents[1]

# The same examples every time, so that a change is judged by its own merits; new ones are looked
# for with `pytest --hypothesis-profile=explore`.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile("steady")


def pytest_configure() -> None:
    """Let signals arrive that tests may have been told to ignore, by a shell's `&` or `nohup`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


LONG_FILES = (
    "test_faults.py",
    "test_exactness.py",
    "test_cli_train.py",
    "test_fuzz.py",
    "test_blocks.py",
    "test_kill_points.py",
    "test_evaluate_cluster.py",
    "test_docs.py",
    "test_training_scripts.py",
    "test_snakemake.py",
    "test_resume.py",
    "test_real_slides.py",
    "test_cli_interrupt.py",
    "test_killed_workers.py",
    "test_stages.py",
    "test_full_disk.py",
    "test_fault_benchmark.py",
    "test_kubernetes.py",
    "test_object_image.py",
    "test_cli_process.py",
    "test_measured.py",
)
"""Names of the files of tests that take longest, in this order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no process is left with one at the end."""
    places = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session", autouse=True)
def forked_workers() -> None:
    """Let `ClusterOptions(workers=…)` start workers from a process that has imported everything."""
    warm.fork_dask_workers()


@pytest.fixture(scope="session", autouse=True)
def freed_memory_is_kept() -> None:
    """Let arrays reuse memory, as those of commands do, instead of faulting in new pages."""
    from wsi_unet.models.inference.devices import keep_freed_memory

    keep_freed_memory()


@pytest.fixture(autouse=True)
def no_output_stays_locked() -> Iterator[None]:
    """Blame a test that leaves a lock behind, rather than one that counts them."""
    yield
    assert release_all() == 0


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let nothing be remembered from other runs, nor for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("WSI_UNET_CACHE", raising=False)
        yield


@pytest.fixture(scope="session")
def example_slide_path() -> Path:
    """Return the example slide: Aperio JPEG, 2967 x 2220 px (rows, columns), 0.499 µm/px."""
    path = ROOT / "examples" / "CMU-1-Small-Region.svs"
    assert path.is_file(), f"the example slide is missing from the checkout: {path}"
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of larger real data; skip the test if it is absent."""
    given = os.environ.get("WSI_UNET_TEST_DATA")
    path = Path(given) if given else ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no larger test data at {path}; set WSI_UNET_TEST_DATA to its folder")
    return path


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Run an S3 server on loopback."""
    pytest.importorskip("moto")
    with running_server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    """Return the server, with an environment that points to it alone."""
    for name in [*os.environ]:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    environment = {**KEYS, "AWS_ENDPOINT_URL": s3_server.endpoint, "AWS_REGION": "us-east-1"}
    environment |= {name: str(tmp_path / "no-such-file") for name in FILES}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """Return the URL of a new bucket."""
    return s3.make_bucket(f"bucket-{uuid.uuid4().hex}")


@pytest.fixture
def s3_proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Run a proxy in front of the server, and point the environment to it."""
    with running_proxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
