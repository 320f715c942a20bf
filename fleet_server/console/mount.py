"""Puts the console onto the people's application: once per process, because NiceGUI is one per process."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from fleet_server.console.door import Door
from fleet_server.console.gate import CONSOLE, Gate
from fleet_server.console.login import add_login
from fleet_server.console.snapshot import ConsolePorts


def guard(app: FastAPI, ports: ConsolePorts, door: Door) -> None:
    """Add the way in and the gate before everything of the console; loads nothing of NiceGUI."""
    add_login(app, door)
    app.add_middleware(Gate, door=door, clock=ports.clock)


def mount(app: FastAPI, ports: ConsolePorts) -> None:
    """Add the console, guarded. Loads NiceGUI, which takes a while and keeps state of its own in this process."""
    door = Door(ports.database, clock=ports.clock)
    guard(app, ports, door)
    from nicegui import ui

    from fleet_server.console.feed import Feed
    from fleet_server.console.page import add_page
    from fleet_server.console.snapshot import Photographer

    add_page(ports, door, Feed(Photographer(ports).take, in_thread=run_in_threadpool, clock=ports.clock))
    # Everything of NiceGUI's lies below the console's path, so that the gate needs to know no other.
    ui.run_with(
        app,
        mount_path=CONSOLE,
        title="edgefleet",
        dark=None,
        tailwind=False,
        show_welcome_message=False,
        # The shorter default takes a busy machine for a lost connection.
        reconnect_timeout=10.0,
    )
