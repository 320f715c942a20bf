"""What can go wrong on the server, beyond the families of the contract; HTTP statuses are in problems.py only."""

from __future__ import annotations

from edge_runtime.contract.errors import EdgeError


class FleetError(EdgeError):
    """The server cannot do what was asked."""

    default_code = "fleet"


class StartError(FleetError):
    """The server cannot start (port taken, folder in use, unusable data)."""

    default_code = "start"


class NotFound(FleetError):
    """What was named is not known to this server."""

    default_code = "not_found"


class Conflict(FleetError):
    """The request contradicts what is already stored."""

    default_code = "conflict"


class InvalidRequest(FleetError):
    """The request cannot be understood or makes no sense."""

    default_code = "invalid_request"


class TooLarge(FleetError):
    """A body or file exceeds its limit."""

    default_code = "too_large"


class StorageFull(FleetError):
    """The server's disk cannot take more."""

    default_code = "disk_full"


class Unauthenticated(FleetError):
    """Nobody that this server knows is asking."""

    default_code = "unauthenticated"


class Forbidden(FleetError):
    """Whoever asks is known, or holds something real, but may not do this."""

    default_code = "forbidden"
