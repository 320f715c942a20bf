"""What the protocol's two doors share: a request's parameters, its answer, and what a server tells of its models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from edge_runtime.contract.ids import shown
from edge_runtime.doors.v2.datatypes import BYTES, datatype_of
from edge_runtime.doors.v2.regions import RegionRange, SystemRegions, read_range
from edge_runtime.inference.backend import Array
from edge_runtime.serving.calls import BadCall, Call, Reply, SequenceStep, TensorMeta, Values
from edge_runtime.serving.served import Served
from edge_runtime.serving.statistics import ServedStatistics, Spent

SERVER_NAME: Final = "edge-runtime"
_SHARED_MEMORY: Final = "system_shared_memory"
EXTENSIONS: Final = (
    "classification",
    "sequence",
    "model_repository",
    "model_configuration",
    _SHARED_MEMORY,
    "binary_tensor_data",
    "parameters",
    "statistics",
)
"""Extensions of Triton that this server honours, by Triton's names."""

DEFAULT_PRIORITY: Final = 10
"""The level of a request that names none, in the protocol's order: 1 is the most urgent."""

_TIMEOUT_MAX_US: Final = 1 << 53
_PRIORITY_MAX: Final = 1 << 32
_CLASSES_MAX: Final = 1 << 20
_SEQUENCE_ID_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Schedule:
    """When, how urgently and in which sequence a request wants to be answered."""

    deadline: float | None = None
    """`time.monotonic()` seconds."""
    priority: int = 0
    """Higher is more urgent, unlike on the wire."""
    sequence: SequenceStep | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """One output that a client asks for, and how it wants it."""

    name: str
    classification: int = 0
    """Give the best classes as text instead of the tensor: so many; 0: the tensor."""
    region: RegionRange | None = None
    """Write it into this shared memory."""


class OutputTensor(NamedTuple):
    """One output as it is answered."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values


NO_SCHEDULE: Final = Schedule()


def read_schedule(parameters: Mapping[str, object], now: float) -> Schedule:
    """Deadline, priority and sequence from a request's parameters; others are none of our business.

    Args:
        parameters: as the client sent them.
        now: `time.monotonic()` seconds when the request arrived.

    Raises:
        BadCall: one of them has an impossible value.
    """
    if not parameters:
        return NO_SCHEDULE
    timeout_us = _whole(parameters, "timeout", _TIMEOUT_MAX_US)
    level = _whole(parameters, "priority", _PRIORITY_MAX)
    return Schedule(
        now + timeout_us / 1e6 if timeout_us else None,
        DEFAULT_PRIORITY - level if level else 0,
        _sequence_step(parameters),
    )


def read_wishes(named: Iterable[tuple[str, Mapping[str, object]]], regions: SystemRegions) -> tuple[Wish, ...]:
    """Which outputs are wanted, and how; a region that cannot hold one is refused before work. Raises: BadCall."""
    wishes = tuple(read_wish(name, parameters) for name, parameters in named)
    check_room(wishes, regions)
    return wishes


def check_room(wishes: Iterable[Wish], regions: SystemRegions) -> None:
    """Refuse outputs that are wanted where they cannot go. Raises: BadCall."""
    for wish in wishes:
        if wish.region is not None:
            regions.check(wish.region)


def read_wish(name: str, parameters: Mapping[str, object]) -> Wish:
    """How one output is wanted. Raises: BadCall."""
    if not parameters:
        return Wish(name)
    count = _whole(parameters, "classification", _CLASSES_MAX)
    region = read_range(name, parameters)
    if count and region:
        raise BadCall(f"give output {shown(name)}", "classes cannot be written to shared memory", "ask for one of both")
    return Wish(name, count, region)


def names_of(wishes: Iterable[Wish]) -> tuple[str, ...] | None:
    """The outputs that are wished for; None: all there are. Raises: BadCall when one is wanted twice."""
    names = tuple(wish.name for wish in wishes)
    if len(set(names)) != len(names):
        raise BadCall("answer", "the request names an output twice")
    return names or None


def call_of(inputs: dict[str, Values], wishes: Iterable[Wish], schedule: Schedule) -> Call:
    """The call that a request makes. Raises: BadCall when it wants an output twice."""
    return Call(inputs, names_of(wishes), schedule.deadline, schedule.priority, schedule.sequence)


def outputs_of(
    reply: Reply, wishes: tuple[Wish, ...], labels: Callable[[str], Sequence[str]] = lambda _: ()
) -> list[OutputTensor]:
    """The outputs in the order in which they were asked for; all of the reply's when none was named.

    Args:
        reply: what the model said.
        wishes: what was asked for.
        labels: tells what the classes of an output are called.

    Raises:
        BadCall: classes are wanted of something that has none.
    """
    if not wishes:
        return [_output(name, values) for name, values in reply.tensors.items()]
    return [
        classified(wish.name, reply.tensors[wish.name], wish.classification, labels(wish.name))
        if wish.classification
        else _output(wish.name, reply.tensors[wish.name])
        for wish in wishes
    ]


def classified(name: str, values: Values, count: int, labels: Sequence[str] = ()) -> OutputTensor:
    """The best classes of each row as `score:index:label`, best first (Triton's classification extension).

    Raises:
        BadCall: the output holds no numbers.
    """
    if isinstance(values, list) or not values.size:
        raise BadCall(f"classify output {shown(name)}", "it holds no numbers")
    rows: Array = values.reshape(len(values), -1) if values.ndim > 1 else values.reshape(1, -1)
    count = min(count, rows.shape[1])
    # Stable, so that equal scores keep the order of their classes.
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    elements = [
        f"{float(rows[row, index]):f}:{index}{_named(index, labels)}".encode()
        for row in range(len(rows))
        for index in order[row].tolist()
    ]
    shape = (len(rows), count) if values.ndim > 1 else (count,)
    return OutputTensor(name, BYTES, shape, elements)


def _named(index: int, labels: Sequence[str]) -> str:
    return f":{labels[index]}" if index < len(labels) else ""


def server_metadata(version: str, *, shares_memory: bool = True) -> dict[str, Any]:
    """What `GET /v2` answers."""
    extensions = [one for one in EXTENSIONS if shares_memory or one != _SHARED_MEMORY]
    return {"name": SERVER_NAME, "version": version, "extensions": extensions}


def model_metadata(served: Served, versions: Iterable[str]) -> dict[str, Any]:
    """Names, datatypes and shapes of a model's tensors; −1 is a size that may vary."""
    return {
        "name": served.name,
        "versions": list(versions),
        "platform": "edgefleet",
        "inputs": [_tensor_metadata(meta) for meta in served.inputs],
        "outputs": [_tensor_metadata(meta) for meta in served.outputs],
    }


def model_config(served: Served) -> dict[str, Any]:
    """The same in the terms of Triton's model configuration; shapes are whole, so `max_batch_size` is 0."""
    return {
        "name": served.name,
        "platform": "edgefleet",
        "backend": "edgefleet",
        "max_batch_size": 0,
        "input": [_tensor_config(meta) for meta in served.inputs],
        "output": [_tensor_config(meta) for meta in served.outputs],
    }


def model_statistics(served: Served, statistics: ServedStatistics) -> dict[str, Any]:
    """One version's counters, as Triton's statistics extension names them; durations in ns."""
    stages = {
        "success": statistics.success,
        "fail": statistics.fail,
        "queue": statistics.queue,
        "compute_input": statistics.compute_input,
        "compute_infer": statistics.compute_infer,
        "compute_output": statistics.compute_output,
        "cache_hit": Spent(),
        "cache_miss": Spent(),
    }
    return {
        "name": served.name,
        "version": served.version,
        "last_inference": statistics.last_inference_ms,
        "inference_count": statistics.inference_count,
        "execution_count": statistics.execution_count,
        "inference_stats": {name: {"count": spent.count, "ns": spent.ns} for name, spent in stages.items()},
        "batch_stats": [],
    }


def _output(name: str, values: Values) -> OutputTensor:
    if isinstance(values, list):
        return OutputTensor(name, BYTES, (len(values),), values)
    return OutputTensor(name, _datatype(values.dtype), values.shape, values)


@lru_cache(maxsize=64)
def _datatype(dtype: np.dtype[Any]) -> str:
    return datatype_of(dtype.name)


def _tensor_metadata(meta: TensorMeta) -> dict[str, Any]:
    return {"name": meta.name, "datatype": datatype_of(meta.dtype), "shape": list(meta.shape)}


def _tensor_config(meta: TensorMeta) -> dict[str, Any]:
    datatype = datatype_of(meta.dtype)
    kind = "TYPE_STRING" if datatype == BYTES else f"TYPE_{datatype}"
    return {"name": meta.name, "data_type": kind, "dims": list(meta.shape)}


def _sequence_step(parameters: Mapping[str, object]) -> SequenceStep | None:
    name = parameters.get("sequence_id", 0)
    is_name = (isinstance(name, int) and not isinstance(name, bool)) or isinstance(name, str)
    if not is_name or (isinstance(name, str) and len(name) > _SEQUENCE_ID_MAX):
        raise BadCall("answer", f"sequence_id is {shown(name)}", "use a number or a text")
    start, end = parameters.get("sequence_start", False), parameters.get("sequence_end", False)
    if not isinstance(start, bool) or not isinstance(end, bool):
        raise BadCall("answer", "sequence_start or sequence_end is neither true nor false")
    assert isinstance(name, int | str)
    # 0 and the empty text mean: part of no sequence.
    return SequenceStep(name, start, end) if name else None


def _whole(parameters: Mapping[str, object], key: str, most: int) -> int:
    value = parameters.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise BadCall("answer", f"parameter {key} is {shown(value)}", f"use a whole number from 0 to {most}")
    return value
