"""The server's configuration: built once, checked once, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SERVER_CLIENT_ID = "fleet-server"
"""CN and MQTT client id of the server's own client; no device may bear it."""


class ServerSettings(BaseSettings):
    """Everything `edge-fleet serve` can be told, by option or by `EDGEFLEET_SERVE_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="EDGEFLEET_SERVE_", frozen=True, extra="forbid")

    data_dir: Path
    host: str = "127.0.0.1"
    """Address of the people's listener (plain HTTP: keep it on loopback or behind a proxy with TLS)."""
    devices_host: str = "127.0.0.1"
    """Address of the devices' listener and of the broker."""
    public_host: str = "127.0.0.1"
    """Name or address under which devices reach this server; it is in the server's certificate."""
    people_port: int = Field(default=8080, ge=1, le=65535)
    devices_port: int = Field(default=8443, ge=1, le=65535)
    mqtt_port: int = Field(default=8883, ge=1, le=65535)
    broker: Literal["auto", "embedded", "mosquitto"] = "auto"
    database_url: str | None = None
    """SQLAlchemy URL; None: `fleet.db` in the data folder."""
    certificate_days: float = Field(default=30.0, gt=0, le=825)
    """How long a device's certificate is valid; devices renew at two thirds."""
    telemetry_days: float = Field(default=30.0, gt=0)
    """How long samples are kept."""
    tick_s: float = Field(default=0.5, ge=0.05, le=60)
    """Pause between two looks at running rollouts."""
    unsafe_open_broker: bool = False
    """Switches every topic rule of the broker off; only for controls that must see an attack succeed."""
    unsafe_disable: tuple[Literal["gate", "acl", "signatures"], ...] = ()
    """Defences switched off, for controls that must see the demo fail without them."""

    @property
    def url(self) -> str:
        """The database URL that is used."""
        return self.database_url or f"sqlite:///{self.data_dir / 'fleet.db'}"
