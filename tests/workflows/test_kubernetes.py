"""The Kubernetes manifest: it is consistent, and its commands work as processes."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import warm
from support.clusters import running, until

MANIFEST = Path(__file__).resolve().parents[2] / "workflows" / "kubernetes" / "segment.yaml"
PROGRAM = (sys.executable, "-c", "from wsi_unet_cli.main import main; main()")


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    documents = yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
    return {document["kind"]: document for document in documents}


def pods(parts: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = parts["DaskCluster"]["spec"]
    job = parts["Job"]["spec"]["template"]
    return [cluster["scheduler"]["spec"], cluster["worker"]["spec"], job["spec"]]


def test_the_parts_fit_together(parts: dict[str, Any]) -> None:
    assert list(parts) == ["ConfigMap", "DaskCluster", "Job"]
    name = parts["DaskCluster"]["metadata"]["name"]
    scheduler = parts["DaskCluster"]["spec"]["scheduler"]
    ports = {
        port["name"]: port["containerPort"] for port in scheduler["spec"]["containers"][0]["ports"]
    }
    # What the operator looks for: https://kubernetes.dask.org/en/latest/operator_resources.html
    assert ports == {"tcp-comm": 8786, "http-dashboard": 8787}
    assert {port["targetPort"] for port in scheduler["service"]["ports"]} == set(ports)
    assert scheduler["service"]["selector"] == {
        "dask.org/cluster-name": name,
        "dask.org/component": "scheduler",
    }
    images = set()
    for pod in pods(parts):
        (container,) = pod["containers"]
        images.add(container["image"])
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]} == {"tls", "config"}
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment["DASK_CONFIG"] == "/config/dask.yaml"
        address = f"tls://{name}-scheduler:8786"
        assert environment.get("DASK_SCHEDULER_ADDRESS", address) == address
    assert len(images) == 1
    volumes = [{v["name"]: v for v in pod["volumes"]} for pod in pods(parts)]
    assert {v["config"]["configMap"]["name"] for v in volumes} == {
        parts["ConfigMap"]["metadata"]["name"]
    }
    assert {v["tls"]["secret"]["secretName"] for v in volumes} == {"wsi-unet-tls"}


def test_its_commands_segment_a_slide(
    parts: dict[str, Any], example_slide_path: Path, tmp_path: Path
) -> None:
    port = free_port()
    here = {
        "/tls/": f"{tmp_path}/",
        "/config/": f"{tmp_path}/",
        "tls://wsi-unet-scheduler:8786": f"tls://127.0.0.1:{port}",
        "$(DASK_WORKER_NAME)": "worker-0",
        "s3://bucket/cohort.csv": str(tmp_path / "cohort.csv"),
        "s3://bucket/results/": f"{tmp_path}/results/",
    }

    def adapted(text: str) -> str:
        for there, replacement in here.items():
            text = text.replace(there, replacement)
        return text

    comments = MANIFEST.read_text(encoding="utf-8").partition("kubectl")[0]
    (certificate,) = re.findall(r"openssl (.*?)\n#\s*$", comments, flags=re.DOTALL)
    words = shlex.split(re.sub(r"\\\n#", " ", certificate))
    subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "dask.yaml").write_text(adapted(parts["ConfigMap"]["data"]["dask.yaml"]))
    (tmp_path / "cohort.csv").write_text(f"slide,tissue\n{example_slide_path},none\n")

    commands = []
    for pod in pods(parts):
        (container,) = pod["containers"]
        environment = {entry["name"]: adapted(entry["value"]) for entry in container["env"]}
        commands.append(([adapted(word) for word in container["args"]], environment))
    (scheduler, at_scheduler), (worker, at_worker), (client, at_client) = commands
    scheduler[scheduler.index("8786")] = str(port)
    scheduler[scheduler.index(":8787")] = "127.0.0.1:0"
    with ExitStack() as stack:
        log = tmp_path / "scheduler.log"
        stack.enter_context(running(*scheduler, env=at_scheduler, log=log))
        until(lambda: "Scheduler at" in log.read_text(), "the scheduler starts", log)
        stack.enter_context(running(*worker, env=at_worker, log=tmp_path / "worker.log"))
        done = warm.run(
            [*PROGRAM, *client[1:], "--region", "0,0,512,512", "--block", "512", "--json"],
            env={"PATH": "/usr/bin:/bin", **at_client},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr + (tmp_path / "worker.log").read_text()
    report = json.loads((tmp_path / "results" / "cohort.json").read_text(encoding="utf-8"))
    assert report["slides"][0]["status"] == "finished", report
