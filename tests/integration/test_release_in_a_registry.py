"""A release survives a real OCI registry and back, copied by skopeo, with its digest unchanged."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.contract.layout import LayoutFolder, open_variant
from tests.conftest import find_tool
from tests.fakes.documents import write_release
from tests.fakes.ports import free_port, wait_until_listening
from tests.fakes.processes import begin

pytestmark = pytest.mark.needs_registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    settings = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    config = tmp_path / "registry.json"  # JSON is YAML
    config.write_text(json.dumps(settings))
    process = begin([find_tool("docker-registry") or "", "serve", str(config)], tmp_path / "registry.log")
    try:
        wait_until_listening(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def test_layout_to_registry_to_layout_keeps_the_release_digest(tmp_path: Path, registry: str) -> None:
    digest = write_release(tmp_path / "out")

    _copy(f"oci:{tmp_path / 'out'}:1.0.0", f"docker://{registry}/digits:1.0.0")
    _copy(f"docker://{registry}/digits:1.0.0", f"oci:{tmp_path / 'back'}:1.0.0")

    back = LayoutFolder(tmp_path / "back")
    release = back.open()
    assert release.digest == digest
    assert [open_variant(back, entry).manifest.id for entry in release.index.variants] == ["ort-fp32", "ort-int8"]


def _copy(source: str, destination: str) -> None:
    command = [find_tool("skopeo"), "--insecure-policy", "copy", "--all", "--preserve-digests", "--quiet"]
    plain = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    whole = [*command, *plain, source, destination]
    outcome = subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stderr
