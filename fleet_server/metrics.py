"""What Prometheus sees: counted when it asks, so that nothing needs to be kept in step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from fleet_server.db import Database
from fleet_server.inventory.service import Inventory
from fleet_server.messaging.ingest import IngestClient


class FleetMetrics:
    """Devices, slots and ingest, as metric families."""

    def __init__(self, database: Database, inventory: Inventory, client: IngestClient) -> None:
        self._database = database
        self._inventory = inventory
        self._client = client
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self) -> bytes:
        """The Prometheus text format."""
        text: bytes = generate_latest(self._registry)
        return text

    def describe(self) -> Iterator[Any]:
        """Nothing: prometheus_client would otherwise collect once at registration."""
        return iter(())

    def collect(self) -> Iterator[Any]:
        """Called by prometheus_client for every scrape."""
        with self._database.reading() as session:
            devices, slots = self._inventory.counts(session)
        by_device = GaugeMetricFamily("edgefleet_devices", "Devices known.", labels=["standing", "connection"])
        for (standing, connection), count in sorted(devices.items()):
            by_device.add_metric([standing, connection], count)
        by_slot = GaugeMetricFamily("edgefleet_slots", "Slots by reported state.", labels=["state"])
        for state, count in sorted(slots.items()):
            by_slot.add_metric([state], count)
        connected = GaugeMetricFamily("edgefleet_broker_connected", "Whether the broker delivers to the server.")
        connected.add_metric([], float(self._client.is_connected))
        messages = CounterMetricFamily("edgefleet_ingest_messages", "Messages of devices.", labels=["outcome"])
        counters = self._client.counters
        for outcome in ("received", "committed", "refused", "overflowed"):
            messages.add_metric([outcome], getattr(counters, outcome))
        failures = CounterMetricFamily("edgefleet_ingest_failed_batches", "Batches that could not be stored.")
        failures.add_metric([], counters.failed_batches)
        yield from (by_device, by_slot, connected, messages, failures)
