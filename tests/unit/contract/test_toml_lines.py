"""The line of a TOML file that writes a key, also in lists of tables."""

from __future__ import annotations

import pytest

from edge_runtime.contract.toml_lines import line_of

TEXT = """
[a]
x = 1
[[a.b]]
x = 1
[[a.b]]
x = 1
[a.b.c]
x = 1
[[a.b.d]]
x = 1
[[a.b]]
y = 2
[[a.b.d]]
x = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("a.x", 3), ("a.b.0.x", 5), ("a.b.1.x", 7), ("a.b.1.c.x", 9), ("a.b.1.d.0.x", 11), ("a.b.2.y", 13),
        ("a.b.2.x", 12), ("a.b.2.d.0.x", 15), ("a.q", 2), ("q", None),
    ],
)  # fmt: skip
def test_a_key_is_found_in_the_table_of_its_place(path: str, line: int | None) -> None:
    assert line_of(TEXT.splitlines(), path.split(".")) == line
