"""The guide for engineers: its recipe is a recipe, its options exist."""

import re
from collections.abc import Iterator
from pathlib import Path

from typer.main import get_command

from converters.cli.main import app
from converters.planning.recipe import parse_recipe
from edge_runtime.cli.main import assemble as build_runtime_app
from fleet_server.cli.main import build as build_fleet_app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "bring-your-own-model.md").read_text()


def test_the_recipe_on_the_page_is_a_recipe() -> None:
    block = next(block for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "[inputs" in block)

    assert parse_recipe(block.encode(), ".toml").name == "wildlife"


def test_every_option_on_the_page_exists() -> None:
    known = {
        name: {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in get_command(app).commands.items()  # type: ignore[attr-defined]
    }
    text = PAGE.replace("\\\n", " ")

    used = re.findall(r"edge-convert (\w+)([^\n`#]*)", text)

    shown = {"check", "doctor", "recipe", "build", "cache", "compare", "keygen", "sign"}
    assert {command for command, _ in used} == shown
    for command, arguments in used:
        assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", arguments)) <= known[command], command


def test_every_option_that_is_named_alone_is_one_of_some_command() -> None:
    known = {flag for one in (app, build_fleet_app(), build_runtime_app()) for flag in _flags(get_command(one))}

    assert set(re.findall(r"`(--[a-z-]+)`", PAGE)) <= known


def _flags(command: object) -> Iterator[str]:
    for below in getattr(command, "commands", {}).values():
        yield from _flags(below)
    for parameter in getattr(command, "params", ()):
        yield from (*parameter.opts, *parameter.secondary_opts)
