"""What a device really gets: an empty environment, the extras it needs, and the oldest engine it may have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from edge_runtime.contract.layout import LayoutFolder
from tests.architecture.test_packaging import NOT_ON_A_DEVICE
from tests.fakes.agents import running_fleet, wait_value
from tests.fakes.digits import build_all
from tests.fakes.pixels import write_source

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
OLDEST = "1.23.2"
"""The newest onnxruntime for Python 3.10, which JetPack 6 has."""


@pytest.fixture(scope="module", params=["python3.10", sys.executable], ids=["python3.10", "this python"])
def device_python(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Python of an environment that holds `edgefleet[device,ort]` and nothing else."""
    if not _runs(request.param):
        pytest.skip(f"needs {request.param}, the oldest that a device may have")
    folder = tmp_path_factory.mktemp("device")
    source, environment = folder / "source", folder / "env"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True, timeout=120)
    subprocess.run([request.param, "-m", "venv", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    install = ["-m", "pip", "install", "-q", "--no-compile", f"{source}[device,ort]", f"onnxruntime=={OLDEST}"]
    subprocess.run([str(python), *install], check=True, timeout=1200)
    return python


def test_a_device_environment_holds_no_web_framework_database_or_converter(device_python: Path) -> None:
    listed = subprocess.run(
        [str(device_python), "-m", "pip", "list", "--format", "json"], capture_output=True, check=True, timeout=120
    )

    installed = {canonicalize_name(one["name"]) for one in json.loads(listed.stdout)}

    assert {"edgefleet", "onnxruntime", "paho-mqtt"} <= installed
    assert not installed & NOT_ON_A_DEVICE


def test_every_shipped_onnx_file_answers_in_the_oldest_engine(device_python: Path, tmp_path: Path) -> None:
    built = build_all(tmp_path)
    picture = next((ROOT / "examples" / "fleet_on_a_laptop" / "model" / "live").glob("*.png"))

    for release in sorted(built.iterdir()):
        for variant in LayoutFolder(release).open().index.variants:
            command = [str(device_python.with_name("edge-runtime")), "run", str(release), str(picture), "--json"]
            answered = subprocess.run(
                [*command, "--variant", variant.id], capture_output=True, text=True, timeout=300, check=False
            )
            assert answered.returncode == 0, answered.stderr
            assert variant.id in answered.stdout


def test_a_device_with_nothing_but_that_joins_a_fleet_and_confirms_a_release(
    device_python: Path, tmp_path: Path
) -> None:
    with running_fleet(tmp_path / "fleet") as fleet:
        agent = fleet.agent("bare", source=write_source(tmp_path / "pictures"))
        agent.python = device_python
        agent.start().wait_event("agent.announced")

        fleet.wait_state("bare", "confirmed", fleet.assign("bare", fleet.release("1.0.0")))

        wait_value("it measures", lambda: fleet.summaries("bare"))
        assert agent.stop() == 0


def _runs(python: str) -> bool:
    try:
        return subprocess.run([python, "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    except OSError:
        return False
