"""What Prometheus reads from a server of models."""

from __future__ import annotations

import bisect
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tritonclient.utils import InferenceServerException

from edge_runtime.client.local import LocalClient
from edge_runtime.contract.errors import ContractError, EdgeError, UnsupportedFeature
from edge_runtime.doors import metrics
from edge_runtime.doors.access import Access
from edge_runtime.doors.door import Listen
from edge_runtime.doors.metrics import BOUNDS_S, EventCounter, ServingMetrics
from edge_runtime.doors.serve import ServePlan, serving
from edge_runtime.inference.blame import BadInput, EngineFault
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.requests.accounting import bucket_of
from edge_runtime.inference.requests.statistics import Histogram, middle_of
from edge_runtime.serving.calls import Call
from edge_runtime.serving.host import ModelHost
from tests.fakes.pixels import picture, write_pixels
from tests.fakes.swap_load import write_versions

LOOPBACK = Listen("127.0.0.1", 0)
ASKED = Call({"image": picture(2)[None]})


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_versions(tmp_path_factory.mktemp("versions"))


def samples(page: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


def value(page: str, name: str, **labels: str) -> float:
    (found,) = (one.value for one in samples(page) if one.name == name and labels.items() <= dict(one.labels).items())
    return found


@pytest.fixture
def host(releases: dict[str, Path]) -> Iterator[tuple[ModelHost, ServingMetrics]]:
    events = EventCounter()
    with ModelHost(on_event=events) as host:
        host.load(releases["1.0.0"])
        yield host, ServingMetrics(host, events)


def test_calls_are_counted_by_how_they_ended(host: tuple[ModelHost, ServingMetrics]) -> None:
    served = host[0].find("pixels")
    for call in (ASKED, ASKED, Call({"nothing": np.zeros(1)}), Call(ASKED.inputs, deadline=0.0)):
        try:
            served.call(call)
        except EdgeError:
            continue

    page = host[1].page().decode()

    counted = {one.labels["outcome"]: one.value for one in samples(page) if one.name == "edge_runtime_calls_total"}
    assert counted == {"success": 2, "failed": 0, "bad_input": 1, "expired": 1, "cancelled": 0, "rejected": 0}
    assert value(page, "edge_runtime_samples_total", model="pixels", version="1.0.0") == 2


def test_faults_of_the_engine_are_told_from_bad_input(
    host: tuple[ModelHost, ServingMetrics], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = host[0].find("pixels")

    def fail(*_: object) -> None:
        raise RuntimeError("device lost")

    with pytest.raises(BadInput):
        served.call(Call({"nothing": np.zeros(1)}))
    with monkeypatch.context() as broken:
        broken.setattr(Predictor, "run_once", fail)
        with pytest.raises(EngineFault):
            served.call(ASKED)

    page = host[1].page().decode()

    assert value(page, "edge_runtime_faults_total", model="pixels", version="1.0.0") == 1
    assert value(page, "edge_runtime_calls_total", outcome="failed") == 1
    assert value(page, "edge_runtime_calls_total", outcome="bad_input") == 1


def test_durations_are_histograms_by_stage(host: tuple[ModelHost, ServingMetrics]) -> None:
    host[0].find("pixels").call(ASKED)

    page = host[1].page().decode()

    stage = {"model": "pixels", "version": "1.0.0", "stage": "run"}
    executions = value(page, "edge_runtime_executions_total")
    assert value(page, "edge_runtime_stage_duration_seconds_count", **stage) == executions
    assert value(page, "edge_runtime_stage_duration_seconds_bucket", **stage, le="+Inf") == executions
    assert 0 < value(page, "edge_runtime_stage_duration_seconds_sum", **stage) < 60


def test_a_swap_is_seen_as_an_event_and_as_another_version(
    host: tuple[ModelHost, ServingMetrics], releases: dict[str, Path]
) -> None:
    host[0].swap(releases["2.0.0"])

    page = host[1].page().decode()

    assert value(page, "edge_runtime_model_events_total", event="model.swapped") == 1
    assert value(page, "edge_runtime_model_state", version="2.0.0", state="ready") == 1
    assert value(page, "edge_runtime_model_state", version="2.0.0", state="failed") == 0
    assert value(page, "edge_runtime_model_info", variant="ort-fp32") == 1
    assert value(page, "edge_runtime_queue_length", version="2.0.0") == 0
    assert value(page, "edge_runtime_models_memory_bytes") == host[0].used_bytes > 0


def test_the_operator_reads_which_version_took_over(releases: dict[str, Path]) -> None:
    said: list[str] = []

    with serving(ServePlan((releases["1.0.0"],), http=LOOPBACK), said.append) as running:
        running.host.swap(releases["2.0.0"])

    assert "model pixels 2.0.0 took over: replaces 1.0.0" in said


@given(st.lists(st.integers(0, 2**41), max_size=60))
def test_a_histogram_keeps_every_duration(durations_ns: list[int]) -> None:
    buckets: dict[int, int] = {}
    for bucket in sorted(map(bucket_of, durations_ns)):
        buckets[bucket] = buckets.get(bucket, 0) + 1

    found = metrics._buckets(Histogram(buckets, sum(durations_ns)))

    known = sorted(middle_of(bucket_of(ns)) / 1e9 for ns in durations_ns)
    assert [count for _, count in found] == [*(bisect.bisect_right(known, bound) for bound in BOUNDS_S), len(known)]
    assert [float(bound) for bound, _ in found] == [*BOUNDS_S, float("inf")]


def test_metrics_stand_beside_the_models_and_alone(releases: dict[str, Path], tmp_path: Path) -> None:
    plan = ServePlan((releases["1.0.0"],), http=LOOPBACK, metrics=LOOPBACK, uds=tmp_path / "s")
    with serving(plan) as running:
        addresses = {door.kind: door.address for door in running.doors}
        with LocalClient(str(tmp_path / "s")) as client:
            client.infer("pixels", {"image": picture(1)[None]})
            pages = [httpx.get(f"{addresses[kind]}/metrics") for kind in ("v2 HTTP", "metrics")]
        hidden = httpx.get(f"{addresses['metrics']}/v2/models/pixels")

    for page in pages:
        assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert value(page.text, "edge_runtime_calls_total", outcome="success") == 1
        assert value(page.text, "edge_runtime_door_requests_total", door="local", outcome="answered") >= 1
        assert value(page.text, "edge_runtime_door_connections", door="local") == 1
        assert value(page.text, "process_resident_memory_bytes") > 0
    assert hidden.status_code == 404


def test_every_door_counts_what_it_answered_what_it_refused_and_whom_it_turned_away(
    releases: dict[str, Path], tmp_path: Path
) -> None:
    token = b"0123456789abcdef"
    plan = ServePlan((releases["1.0.0"],), LOOPBACK, LOOPBACK, LOOPBACK, tmp_path / "s", access=Access(token=token))
    bearer = {"Authorization": f"Bearer {token.decode()}"}
    with serving(plan) as running:
        addresses = {door.kind: door.address for door in running.doors}
        with (
            LocalClient(str(tmp_path / "s")) as local,
            httpx.Client(base_url=addresses["v2 HTTP"]) as http,
            triton.InferenceServerClient(addresses["v2 gRPC"]) as grpc,
        ):
            for name in ("pixels", "nobody"):
                with suppress(EdgeError):
                    local.describe(name)
                with suppress(InferenceServerException):
                    grpc.get_model_metadata(name, headers={"authorization": bearer["Authorization"]})
                http.get(f"/v2/models/{name}", headers=bearer)
            http.get("/v2")
            with suppress(InferenceServerException):
                grpc.get_server_metadata()
        page = httpx.get(f"{addresses['metrics']}/metrics", headers=bearer).text

    found = {
        door: [
            value(page, "edge_runtime_door_requests_total", door=door, outcome=outcome)
            for outcome in ("answered", "refused", "turned_away")
        ]
        for door in ("v2 HTTP", "v2 gRPC", "local")
    }
    assert found == {"v2 HTTP": [1, 1, 1], "v2 gRPC": [1, 1, 1], "local": [1, 1, 0]}


def test_metrics_are_not_shown_to_the_network_without_a_token(releases: dict[str, Path]) -> None:
    with (
        pytest.raises(ContractError, match="--metrics"),
        serving(ServePlan((releases["1.0.0"],), metrics=Listen("0.0.0.0", 0))),
    ):
        pass


def test_a_token_guards_the_metrics(releases: dict[str, Path]) -> None:
    access = Access(token=b"0123456789abcdef")
    with serving(ServePlan((releases["1.0.0"],), metrics=LOOPBACK, access=access)) as running:
        address = f"{running.doors[0].address}/metrics"

        assert httpx.get(address).status_code == 401
        assert httpx.get(address, headers={"Authorization": "Bearer 0123456789abcdef"}).status_code == 200


def test_a_server_without_the_library_serves_models_and_says_what_metrics_need(tmp_path: Path) -> None:
    write_pixels(tmp_path / "release", "1.0.0")
    code = f"""
import sys
sys.modules["prometheus_client"] = None
import httpx
from pathlib import Path
from edge_runtime.doors.door import Listen
from edge_runtime.doors.serve import ServePlan, serving
with serving(ServePlan((Path({str(tmp_path / "release")!r}),), http=Listen("127.0.0.1", 0))) as running:
    address = running.doors[0].address
    metrics = httpx.get(address + "/metrics")
    print(httpx.get(address + "/v2/health/ready").status_code, metrics.status_code, metrics.json()["error"])
"""

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout.startswith("200 501 cannot give metrics: prometheus-client is not installed; pip install")


def test_metrics_that_nothing_can_write_are_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with (
        pytest.raises(UnsupportedFeature, match=r"pip install 'edgefleet\[serve\]'"),
        serving(ServePlan((Path("never read"),), metrics=LOOPBACK)),
    ):
        pass
