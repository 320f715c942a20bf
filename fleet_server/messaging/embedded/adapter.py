"""Our own broker behind the port: a supervised child process, told of revocations through a file and SIGHUP."""

from __future__ import annotations

import sys
from dataclasses import replace

from edge_runtime.contract.ids import DeviceId
from fleet_server.messaging.broker import Address, BrokerSettings, Denylist
from fleet_server.messaging.denylist import read_denylist, write_denylist
from fleet_server.messaging.embedded.settings_file import write_settings
from fleet_server.messaging.files import prepare_directory, with_absolute_paths
from fleet_server.messaging.process import SupervisedProcess


class EmbeddedBroker:
    """The small broker that every installation has."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = with_absolute_paths(settings)
        directory = self._settings.data_dir
        self._settings_file = directory / "broker.json"
        self._denylist_file = directory / "denylist.json"
        # -P: the directory it runs in must not become a place to import from.
        command = (sys.executable, "-P", "-m", "fleet_server.messaging.embedded", str(self._settings_file))
        self._process = SupervisedProcess(command, self.address, directory)

    @property
    def address(self) -> Address:
        """Where clients connect."""
        return Address(self._settings.host, self._settings.port)

    @property
    def process_id(self) -> int | None:
        """The broker's process, or None while there is none."""
        return self._process.process_id

    def start(self) -> None:
        """Return when clients can connect. Raises: BrokerError."""
        prepare_directory(self._settings.data_dir)
        write_settings(self._settings_file, self._settings, self._denylist_file)
        self._process.start()

    def stop(self) -> None:
        """Return when no process is left; safe to call twice."""
        self._process.stop()

    def deny(self, denied: Denylist) -> None:
        """Make this the whole denylist and close the live sessions it names. Raises: BrokerError."""
        prepare_directory(self._settings.data_dir)
        write_denylist(self._denylist_file, denied)
        self._process.reload()

    def revoke(self, device_id: DeviceId) -> None:
        """Add one device to the denylist. Raises: BrokerError."""
        denied = read_denylist(self._denylist_file)
        self.deny(replace(denied, devices=denied.devices | {device_id}))
