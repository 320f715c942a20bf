"""What a server of models did and how it is, as Prometheus reads it: worked out when it asks, counted anyway."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from edge_runtime.contract.errors import UnsupportedFeature
from edge_runtime.doors.door import Door
from edge_runtime.inference.requests.statistics import Histogram, middle_of
from edge_runtime.serving.events import Event
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.seating import ServedState
from edge_runtime.serving.served import Served

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S: Final = (*(float(f"{step}e{power}") for power in range(-5, 1) for step in (1, 2.5, 5)), 10.0)
"""Upper bounds of histogram buckets: 10 µs to 10 s, three for each power of ten."""

_LABELS: Final = ("model", "version")
_DOOR: Final = ("door", "address")


def check_metrics() -> None:
    """Refuse to promise metrics that nothing can write. Raises: UnsupportedFeature: no prometheus_client."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise UnsupportedFeature(
            "give metrics", "prometheus-client is not installed", "pip install 'edgefleet[serve]'"
        ) from error


class EventCounter:
    """Counts what happens to models; the listener that a host tells."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Count one event."""
        with self._lock:
            self._counts[event.model, event.version, event.what.value] += 1

    def read(self) -> dict[tuple[str, str, str], int]:
        """How often, by model, version and kind of event."""
        with self._lock:
            return dict(self._counts)


class ServingMetrics:
    """Metrics of one host; a collector of prometheus_client.

    Args:
        host: whose models.
        events: told by that host.
        doors: those through which calls come.
    """

    def __init__(self, host: ModelHost, events: EventCounter, doors: Callable[[], Sequence[Door]] = tuple) -> None:
        self._host = host
        self._events = events
        self._doors = doors

    def page(self) -> bytes:
        """All metrics in Prometheus's text format. Raises: UnsupportedFeature: no prometheus_client."""
        check_metrics()
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        registry.register(self)
        content: bytes = generate_latest(registry)
        return content

    def describe(self) -> Iterable[Metric]:
        """Nothing: prometheus_client would otherwise collect once at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client for every scrape."""
        # One version may be served under a name and pinned; each is told once.
        models = list({(one.name, one.version): one for one in self._host.models()}.values())
        yield from _counters(models)
        yield _durations(models)
        yield from _conditions(models)
        yield from self._rest()

    def _rest(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield GaugeMetricFamily(
            "edge_runtime_models_memory_bytes", "Memory that loaded models need, by estimate.", self._host.used_bytes
        )
        events = CounterMetricFamily(
            "edge_runtime_model_events", "What happened to models.", labels=(*_LABELS, "event")
        )
        for labels, count in sorted(self._events.read().items()):
            events.add_metric(labels, count)
        yield events
        yield from _doors(self._doors())


def _counters(models: Sequence[Served]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    calls = CounterMetricFamily("edge_runtime_calls", "Calls by how they ended.", labels=(*_LABELS, "outcome"))
    samples = CounterMetricFamily("edge_runtime_samples", "Samples answered.", labels=_LABELS)
    runs = CounterMetricFamily("edge_runtime_executions", "Runs of the engine.", labels=_LABELS)
    faults = CounterMetricFamily("edge_runtime_faults", "Times the model or its engine was to blame.", labels=_LABELS)
    for model in models:
        names, now = [model.name, model.version], model.statistics()
        refused = {
            "bad_input": now.bad_input,
            "expired": now.expired,
            "cancelled": now.cancelled,
            "rejected": now.rejected,
        }
        failed = now.fail.count - sum(refused.values())
        for outcome, count in {"success": now.success.count, "failed": failed, **refused}.items():
            calls.add_metric([*names, outcome], count)
        samples.add_metric(names, now.inference_count)
        runs.add_metric(names, now.execution_count)
        faults.add_metric(names, now.faults)
    yield from (calls, samples, runs, faults)


def _durations(models: Sequence[Served]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    durations = HistogramMetricFamily(
        "edge_runtime_stage_duration_seconds",
        "Time of a call in each stage: waiting, preparing, in the engine, interpreting.",
        labels=(*_LABELS, "stage"),
    )
    for model in models:
        for stage, histogram in model.statistics().stages.items():
            labels = [model.name, model.version, stage]
            durations.add_metric(labels, buckets=_buckets(histogram), sum_value=histogram.total_ns / 1e9)
    return durations


def _conditions(models: Sequence[Served]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    states = GaugeMetricFamily("edge_runtime_model_state", "1 for the state it is in.", labels=(*_LABELS, "state"))
    variants = GaugeMetricFamily(
        "edge_runtime_model_info", "The variant that answers; none while out of memory.", labels=(*_LABELS, "variant")
    )
    waiting = GaugeMetricFamily("edge_runtime_queue_length", "Calls that wait for the model.", labels=_LABELS)
    for model in models:
        names, state = [model.name, model.version], model.state
        for one in ServedState:
            states.add_metric([*names, one.value], float(one is state))
        variants.add_metric([*names, model.variant or ""], 1)
        waiting.add_metric(names, model.waiting)
    yield from (states, variants, waiting)


def _doors(doors: Sequence[Door]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    connections = GaugeMetricFamily("edge_runtime_door_connections", "Clients connected to a door.", labels=_DOOR)
    requests = CounterMetricFamily(
        "edge_runtime_door_requests",
        "Requests answered or refused, and clients turned away, by door.",
        labels=(*_DOOR, "outcome"),
    )
    for door in doors:
        names, now = [door.kind, door.address], door.statistics()
        connections.add_metric(names, now.connections)
        for outcome in ("answered", "refused", "turned_away"):
            requests.add_metric([*names, outcome], getattr(now, outcome))
    yield from (connections, requests)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Counts up to each bound, the last of which is infinity."""
    found: list[tuple[str, float]] = []
    counts = iter(histogram.buckets.items())
    entry, total = next(counts, None), 0
    for bound in BOUNDS_S:
        while entry is not None and middle_of(entry[0]) / 1e9 <= bound:
            total += entry[1]
            entry = next(counts, None)
        found.append((repr(bound), float(total)))
    rest = sum(count for _, count in counts) + (entry[1] if entry else 0)
    return [*found, ("+Inf", float(total + rest))]
