"""Errors of the board catalogue and of everything that puts the runtime onto boards."""

from __future__ import annotations

from edge_runtime.contract.errors import EdgeError


class DeviceError(EdgeError):
    """A board, its profile or its provisioning cannot be used as asked."""

    default_code = "device"


class UnknownTarget(DeviceError):
    """A target name is neither a profile nor a family."""

    default_code = "unknown_target"
