"""What a v2 server can be asked besides inference; both doors answer from here."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.doors.v2.protocol import model_config, model_metadata, model_statistics, server_metadata
from edge_runtime.doors.v2.regions import RegionStatus, SystemRegions
from edge_runtime.doors.v2.repository import Repository
from edge_runtime.serving.calls import BadCall
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.seating import ServedState
from edge_runtime.serving.served import Served

_ANSWERING: Final = frozenset({ServedState.READY, ServedState.DEGRADED})


@dataclass(frozen=True, slots=True)
class V2Service:
    """Models, shared memory and repository of one server."""

    host: ModelHost
    version: str
    """Of the software."""
    repository: Repository | None = None
    """Where clients may load from; None: they may not."""
    regions: SystemRegions = field(default_factory=SystemRegions)
    _loading: threading.Lock = field(default_factory=threading.Lock)

    def metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return server_metadata(self.version, shares_memory=self.regions.is_on)

    def is_ready(self) -> bool:
        """Whether everything that is served answers, and something is."""
        models = self.host.models()
        return bool(models) and all(is_answering(one) for one in models)

    def find(self, name: str, version: str = "") -> Served:
        """A served model. Raises: UnknownModel, UnknownVersion."""
        return self.host.find(name, version or None)

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Tensors of a model, and its versions. Raises: UnknownModel, UnknownVersion."""
        versions = [one.version for one in self.host.models() if one.name == name]
        return model_metadata(self.find(name, version), versions)

    def model_config(self, name: str, version: str = "") -> dict[str, Any]:
        """The same as Triton's model configuration. Raises: UnknownModel, UnknownVersion."""
        return model_config(self.find(name, version))

    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """Counters of every version served, of one model, or of one version. Raises: UnknownModel, UnknownVersion."""
        if version:
            chosen: list[Served] = [self.find(name, version)]
        elif name:
            self.find(name)
            chosen = [one for one in self.host.models() if one.name == name]
        else:
            chosen = list(self.host.models())
        return {"model_stats": [model_statistics(one, one.statistics()) for one in chosen]}

    def index(self, *, only_ready: bool = False) -> list[dict[str, Any]]:
        """What is served, and what the repository holds besides."""
        rows = [
            {"name": one.name, "version": one.version, "state": _state(one), "reason": ""} for one in self.host.models()
        ]
        served = {(row["name"], row["version"]) for row in rows}
        rows += [
            {"name": one.name, "version": one.version, "state": "UNAVAILABLE", "reason": "not loaded"}
            for one in (self.repository.releases() if self.repository else [])
            if (one.name, one.version) not in served
        ]
        return [row for row in rows if not only_ready or row["state"] == "READY"]

    def load(self, name: str, version: str | None = None) -> None:
        """Serve a release of the repository, its newest where no version is given; takes as long as loading takes.

        Another version of a model that is served replaces it between two requests.

        Raises:
            InferenceError: there is no repository, no such release, or it cannot be loaded; what was served still is.
            ContractError: the release breaks the contract.
            TrustError: a file is not the promised one.
        """
        repository = self._repository(f"load model {shown(name)}")
        # One after another: two requests to load the same must not both find it missing.
        with self._loading:
            stored = repository.find(name, version)
            served = {one.version for one in self.host.models() if one.name == name}
            if stored.version in served:
                return
            if served:
                self.host.swap(stored.folder, name=name)
            else:
                self.host.load(stored.folder, name=name)

    def unload(self, name: str) -> None:
        """Drain and free a model that the repository holds. Raises: UnknownModel, InferenceError."""
        self._repository(f"unload model {shown(name)}").find(name, what="unload")
        with self._loading:
            self.host.unload(name)

    def region_statuses(self, name: str | None = None) -> list[dict[str, Any]]:
        """Registered shared memory. Raises: BadCall."""
        return [_region(status) for status in self.regions.statuses(name)]

    def _repository(self, what: str) -> Repository:
        if self.repository is None:
            raise InferenceError(
                what, "this server has no repository", "start it with --repository", code="not_supported_here"
            )
        return self.repository


def wanted_version(name: str, parameters: Mapping[str, object]) -> str | None:
    """The version that a request to load a model names, if it names one. Raises: BadCall for any other parameter."""
    version: str | None = None
    for key, value in parameters.items():
        if key != "version" or not isinstance(value, str):
            raise BadCall(
                f"load model {shown(name)}",
                f"parameter {shown(key)} would change what is loaded",
                "a release is loaded as it was signed; choose one by its version alone",
            )
        version = value
    return version


def is_answering(served: Served) -> bool:
    """Whether a model answers requests, if only on a slower variant."""
    return served.state in _ANSWERING


def _state(served: Served) -> str:
    if served.state is ServedState.LOADING:
        return "LOADING"
    return "READY" if is_answering(served) else "UNAVAILABLE"


def _region(status: RegionStatus) -> dict[str, Any]:
    return {"name": status.name, "key": status.key, "offset": status.offset, "byte_size": status.byte_size}
