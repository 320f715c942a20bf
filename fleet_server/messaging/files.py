"""The broker's own directory: private, and each file in it written whole."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from fleet_server.messaging.broker import BrokerError, BrokerSettings


def prepare_directory(path: Path) -> None:
    """Make a directory that only we may enter. Raises: BrokerError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise BrokerError(f"use {path}", str(error), "give the server a data folder that it may write") from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that only we may read, all of it or none of it. Raises: BrokerError."""
    part = path.with_name(path.name + ".part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            # A power cut must not bring back a list in which a revoked device is missing.
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise BrokerError(f"write {path}", str(error), "check the disk and its permissions") from error


def with_absolute_paths(settings: BrokerSettings) -> BrokerSettings:
    """The same settings for a process with another working directory."""
    return replace(
        settings,
        ca_file=settings.ca_file.absolute(),
        cert_file=settings.cert_file.absolute(),
        key_file=settings.key_file.absolute(),
        data_dir=settings.data_dir.absolute(),
        crl_file=settings.crl_file.absolute() if settings.crl_file else None,
    )
