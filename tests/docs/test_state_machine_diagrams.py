"""docs/state-machines.md shows the state machines as their tables say.

To write it anew: `python -m tests.docs.test_state_machine_diagrams`.
"""

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "state-machines.md"
MACHINES: Mapping[str, str] = {"slot": "edge_runtime.update.states", "rollout": "fleet_server.rollouts.model"}
"""Module behind each marked block; it offers `diagram() -> str`."""
BLOCK = re.compile(r"<!-- begin ([a-z]+) \(generated\) -->\n(.*?)<!-- end \1 -->", re.DOTALL)


def made_anew(name: str) -> str:
    """The block as it must stand in the page."""
    diagram: Callable[[], str] = import_module(MACHINES[name]).diagram
    return f"```mermaid\n{diagram().rstrip()}\n```\n"


@pytest.mark.parametrize("name", MACHINES)
def test_the_page_shows_the_machine_as_its_table_says(name: str) -> None:
    blocks = dict(BLOCK.findall(PAGE.read_text()))

    assert blocks[name] == made_anew(name), "run: python -m tests.docs.test_state_machine_diagrams"


def test_the_page_has_no_block_that_nobody_generates() -> None:
    assert {name for name, _ in BLOCK.findall(PAGE.read_text())} == set(MACHINES)


def block_of(name: str) -> str:
    """The block with the marks around it."""
    return f"<!-- begin {name} (generated) -->\n{made_anew(name)}<!-- end {name} -->"


def write_anew() -> None:
    """Replace every block of the page."""
    PAGE.write_text(BLOCK.sub(lambda found: block_of(found[1]), PAGE.read_text()))


if __name__ == "__main__":
    write_anew()
