"""`edge-device`: which board classes there are, and which one this machine is."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from edge_runtime.contract.errors import EdgeError
from edge_runtime.version import HELP_NAMES, add_version

app = typer.Typer(
    help="Board classes, and how the runtime gets onto them.",
    no_args_is_help=True,
    add_completion=False,
    context_settings=HELP_NAMES,
)
add_version(app, "edge-device")
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def probe(as_json: _Json = False) -> None:
    """Say which board class this machine is, and from which facts."""
    import dataclasses

    from devices.catalogue import load_catalogue
    from devices.probe import profile_of, read_machine

    machine = read_machine()
    profile = profile_of(machine, load_catalogue())
    facts = {**dataclasses.asdict(machine), "profile": profile.id if profile else None}
    typer.echo(json.dumps(facts, sort_keys=True) if as_json else _lines(facts))


@app.command()
def profiles(as_json: _Json = False) -> None:
    """List the board classes that releases can be built for."""
    import msgspec

    from devices.catalogue import load_catalogue

    known = list(load_catalogue().values())
    if as_json:
        typer.echo(json.dumps([msgspec.to_builtins(profile) for profile in known], sort_keys=True))
        return
    for profile in known:
        typer.echo(f"{profile.id:20} {profile.family:7} {profile.arch:8} {profile.support_tier:10} {profile.title}")


def main() -> None:
    """Run the command line; errors are one line, never a traceback."""
    try:
        app()
    except EdgeError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)


def _lines(facts: dict[str, object]) -> str:
    def shown(value: object) -> str:
        return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

    return "\n".join(f"{name:14} {shown(value) or '-'}" for name, value in facts.items())


if __name__ == "__main__":
    main()
