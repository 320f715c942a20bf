"""Asks models that another process serves; cheap to import, and knows nothing of how they are served.

from edge_runtime.client import connect

with connect("unix:/run/edge/models.sock") as client:
    answer = client.infer("wildlife", {"image": [jpeg]}, outputs=["classes"])
"""

from edge_runtime.client.connecting import connect
from edge_runtime.client.errors import (
    BadRequest,
    Busy,
    ModelNotServed,
    NoAnswerInTime,
    NotUnderstood,
    Refused,
    ServerGone,
    TooLate,
)
from edge_runtime.client.model import Answer, Client, Step

__all__ = [
    "Answer",
    "BadRequest",
    "Busy",
    "Client",
    "ModelNotServed",
    "NoAnswerInTime",
    "NotUnderstood",
    "Refused",
    "ServerGone",
    "Step",
    "TooLate",
    "connect",
]
