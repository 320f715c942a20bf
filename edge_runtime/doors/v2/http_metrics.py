"""`/metrics` of an HTTP door: beside the models' paths, or alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_runtime.doors.metrics import CONTENT_TYPE, ServingMetrics
from edge_runtime.doors.v2.http_answer import HttpAnswer
from edge_runtime.doors.v2.http_routes import InferRoute, Route, find_route

if TYPE_CHECKING:
    from edge_runtime.doors.v2.http import Routes

PATH: Final = "/metrics"


def beside_models(metrics: ServingMetrics) -> Routes:
    """The protocol's paths, and the metrics."""
    page = _page(metrics)

    def find(path: str) -> Route | InferRoute | None:
        return page if path == PATH else find_route(path)

    return find


def metrics_alone(metrics: ServingMetrics) -> Routes:
    """The metrics, and no model."""
    page = _page(metrics)

    def find(path: str) -> Route | InferRoute | None:
        return page if path == PATH else None

    return find


def _page(metrics: ServingMetrics) -> Route:
    # Adding up every thread's counters takes longer than a tensor should wait for.
    return Route("GET, HEAD", lambda *_: HttpAnswer(parts=(metrics.page(),), kind=CONTENT_TYPE), is_slow=True)
