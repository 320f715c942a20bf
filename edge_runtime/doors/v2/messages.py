"""The messages of the v2 gRPC service, with the fields that this runtime reads or says.

Numbers and names are the protocol's: `grpc_service.proto` of the Open Inference Protocol and Triton's extensions of it
(repository, statistics, system shared memory, `model_config.proto`). Fields that are not here are skipped.
"""

from __future__ import annotations

from typing import Final

from edge_runtime.doors.v2.wire import (
    BOOL,
    BYTES,
    DOUBLE,
    DOUBLES,
    FLOATS,
    INT,
    STRING,
    UINT,
    VARINTS,
    Field,
    Kind,
    Message,
)


def _map(number: int, name: str, value: Kind | Message) -> Field:
    """A map field: entries of `key` and `value`."""
    return Field(number, name, Message(Field(1, "key", STRING), Field(2, "value", value)), repeated=True)


EMPTY: Final = Message()
NAMED: Final = Message(Field(1, "name", STRING), Field(2, "version", STRING))
"""Request about a model; of a shared memory region only the name."""

LIVE: Final = Message(Field(1, "live", BOOL))
HEALTH_REQUEST: Final = Message(Field(1, "service", STRING))
HEALTH: Final = Message(Field(1, "status", INT))
"""grpc.health.v1, which is not of the v2 protocol: what supervisors ask any gRPC server."""
READY: Final = Message(Field(1, "ready", BOOL))
SERVER_METADATA: Final = Message(
    Field(1, "name", STRING), Field(2, "version", STRING), Field(3, "extensions", STRING, repeated=True)
)

_TENSOR_METADATA: Final = Message(
    Field(1, "name", STRING), Field(2, "datatype", STRING), Field(3, "shape", INT, repeated=True)
)
MODEL_METADATA: Final = Message(
    Field(1, "name", STRING),
    Field(2, "versions", STRING, repeated=True),
    Field(3, "platform", STRING),
    Field(4, "inputs", _TENSOR_METADATA, repeated=True),
    Field(5, "outputs", _TENSOR_METADATA, repeated=True),
)

PARAMETER: Final = Message(
    Field(1, "bool_param", BOOL),
    Field(2, "int64_param", INT),
    Field(3, "string_param", STRING),
    Field(4, "double_param", DOUBLE),
    Field(5, "uint64_param", UINT),
)
CONTENTS: Final = Message(
    Field(1, "bool_contents", VARINTS, repeated=True),
    Field(2, "int_contents", VARINTS, repeated=True),
    Field(3, "int64_contents", VARINTS, repeated=True),
    Field(4, "uint_contents", VARINTS, repeated=True),
    Field(5, "uint64_contents", VARINTS, repeated=True),
    Field(6, "fp32_contents", FLOATS, repeated=True),
    Field(7, "fp64_contents", DOUBLES, repeated=True),
    Field(8, "bytes_contents", BYTES, repeated=True),
)
_INPUT: Final = Message(
    Field(1, "name", STRING),
    Field(2, "datatype", STRING),
    Field(3, "shape", INT, repeated=True),
    _map(4, "parameters", PARAMETER),
    Field(5, "contents", CONTENTS),
)
_REQUESTED_OUTPUT: Final = Message(Field(1, "name", STRING), _map(2, "parameters", PARAMETER))
RAW_INPUT_CONTENTS: Final = 7
INFER_REQUEST: Final = Message(
    Field(1, "model_name", STRING),
    Field(2, "model_version", STRING),
    Field(3, "id", STRING),
    _map(4, "parameters", PARAMETER),
    Field(5, "inputs", _INPUT, repeated=True),
    Field(6, "outputs", _REQUESTED_OUTPUT, repeated=True),
    Field(RAW_INPUT_CONTENTS, "raw_input_contents", BYTES, repeated=True),
)
_OUTPUT: Final = Message(
    Field(1, "name", STRING),
    Field(2, "datatype", STRING),
    Field(3, "shape", INT, repeated=True),
    _map(4, "parameters", PARAMETER),
)
INFER_RESPONSE: Final = Message(
    Field(1, "model_name", STRING),
    Field(2, "model_version", STRING),
    Field(3, "id", STRING),
    _map(4, "parameters", PARAMETER),
    Field(5, "outputs", _OUTPUT, repeated=True),
    Field(6, "raw_output_contents", BYTES, repeated=True),
)
STREAM_RESPONSE: Final = Message(Field(1, "error_message", STRING), Field(2, "infer_response", INFER_RESPONSE))

_CONFIG_INPUT: Final = Message(
    Field(1, "name", STRING), Field(2, "data_type", INT), Field(4, "dims", INT, repeated=True)
)
_CONFIG_OUTPUT: Final = Message(
    Field(1, "name", STRING), Field(2, "data_type", INT), Field(3, "dims", INT, repeated=True)
)
MODEL_CONFIG: Final = Message(
    Field(
        1,
        "config",
        Message(
            Field(1, "name", STRING),
            Field(2, "platform", STRING),
            Field(4, "max_batch_size", INT),
            Field(5, "input", _CONFIG_INPUT, repeated=True),
            Field(6, "output", _CONFIG_OUTPUT, repeated=True),
            Field(17, "backend", STRING),
        ),
    )
)

_DURATION: Final = Message(Field(1, "count", UINT), Field(2, "ns", UINT))
_STATISTICS: Final = Message(
    Field(1, "name", STRING),
    Field(2, "version", STRING),
    Field(3, "last_inference", UINT),
    Field(4, "inference_count", UINT),
    Field(5, "execution_count", UINT),
    Field(
        6,
        "inference_stats",
        Message(
            Field(1, "success", _DURATION),
            Field(2, "fail", _DURATION),
            Field(3, "queue", _DURATION),
            Field(4, "compute_input", _DURATION),
            Field(5, "compute_infer", _DURATION),
            Field(6, "compute_output", _DURATION),
            Field(7, "cache_hit", _DURATION),
            Field(8, "cache_miss", _DURATION),
        ),
    ),
    Field(
        7,
        "batch_stats",
        Message(
            Field(1, "batch_size", UINT),
            Field(2, "compute_input", _DURATION),
            Field(3, "compute_infer", _DURATION),
            Field(4, "compute_output", _DURATION),
        ),
        repeated=True,
    ),
)
MODEL_STATISTICS: Final = Message(Field(1, "model_stats", _STATISTICS, repeated=True))

REPOSITORY_INDEX_REQUEST: Final = Message(Field(1, "repository_name", STRING), Field(2, "ready", BOOL))
REPOSITORY_INDEX: Final = Message(
    Field(
        1,
        "models",
        Message(
            Field(1, "name", STRING), Field(2, "version", STRING), Field(3, "state", STRING), Field(4, "reason", STRING)
        ),
        repeated=True,
    )
)
_REPOSITORY_PARAMETER: Final = Message(
    Field(1, "bool_param", BOOL), Field(2, "int64_param", INT), Field(3, "string_param", STRING),
    Field(4, "bytes_param", BYTES),
)  # fmt: skip
REPOSITORY_MODEL: Final = Message(
    Field(1, "repository_name", STRING), Field(2, "model_name", STRING), _map(3, "parameters", _REPOSITORY_PARAMETER)
)
"""Request to load or unload a model."""

REGION: Final = Message(
    Field(1, "name", STRING), Field(2, "key", STRING), Field(3, "offset", UINT), Field(4, "byte_size", UINT)
)
"""A region of system shared memory, as it is registered and as it is listed."""

REGIONS: Final = Message(_map(1, "regions", REGION))
