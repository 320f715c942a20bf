"""Reads two releases, compares them, and says what changed: as a table, as JSON, as a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from converters.errors import CannotWrite
from converters.report.build_report import columns_that_fit, print_columns
from converters.report.compare import Comparison, Numbers, Side, VariantChange, compare
from converters.report.page import number_text, page_environment, size_text
from edge_runtime.contract.codec import decode
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.evidence import EVIDENCE_LAYER, EvidenceFile
from edge_runtime.contract.ids import LayerName
from edge_runtime.contract.layout import LayoutFolder, open_variant, read_checked
from edge_runtime.contract.release import VariantManifest

if TYPE_CHECKING:
    from rich.console import Console

_EVIDENCE_MAX_BYTES: Final = 4 * 1024 * 1024
_COLUMNS: Final = ("variant", "change", "size", "accuracy", "p50")
_TEXTS: Final = frozenset({"variant", "change"})


def compare_releases(before: Path, after: Path) -> Comparison:
    """Compare two release folders. Raises: ContractError, TrustError when one is no whole release."""
    return compare(read_side(before), read_side(after))


def read_side(path: Path) -> Side:
    """A release folder, as far as a comparison needs it. Raises: as `compare_releases`."""
    folder = LayoutFolder(path)
    release = folder.open()
    variants: dict[str, tuple[Digest, VariantManifest]] = {
        entry.id: (entry.digest, open_variant(folder, entry).manifest) for entry in release.index.variants
    }
    evidence = None
    name = LayerName(EVIDENCE_LAYER)
    if name in release.layers.by_title:
        content = read_checked(folder, release.layers.descriptor(name), max_bytes=_EVIDENCE_MAX_BYTES)
        evidence = decode(content, EvidenceFile, max_bytes=_EVIDENCE_MAX_BYTES)
    return Side(release.digest, release.manifest, variants, evidence)


def as_json(found: Comparison) -> str:
    """For machines."""
    return msgspec.json.format(msgspec.json.encode(found, order="sorted"), indent=2).decode()


def write_page(found: Comparison, path: Path) -> None:
    """One HTML page that needs nothing else. Raises: CannotWrite."""
    page = page_environment().get_template("compare.html").render(found=found)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"write {path}", error.strerror or str(error), "name another file") from error


def print_comparison(found: Comparison, console: Console) -> None:
    """For a person."""
    from rich.text import Text

    left_out = _print_table(found, console)
    if left_out:
        console.print(Text(f"{', '.join(left_out)}: left out, the window is narrow; --json has all"))
    for change in found.promises:
        console.print(Text(f"{change.path}: {change.before} → {change.after}"), soft_wrap=True)
    for waiver in found.waivers_added:
        console.print(Text(f"NEWLY SWITCHED OFF {waiver.check}: {waiver.detail}", style="bold yellow"), soft_wrap=True)
    for waiver in found.waivers_gone:
        console.print(Text(f"no longer switched off: {waiver.check}"), soft_wrap=True)
    for note in found.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    if found.is_same:
        console.print(Text("the same release, byte for byte"))


def _print_table(found: Comparison, console: Console) -> list[str]:
    """One row for each variant; the columns that there is no room for come back."""
    from rich.text import Text

    console.print(Text(found.title, style="bold"))
    return print_columns(columns_of(found, console.width), console, _TEXTS)


def columns_of(found: Comparison, width: int) -> dict[str, list[str]]:
    """Cells by heading; in a window too narrow for before and after on one line, each pair takes two."""
    rows = [cells(one) for one in found.variants]
    columns = {name: [row[position] for row in rows] for position, name in enumerate(_COLUMNS)}
    if columns_that_fit(columns, width) == list(_COLUMNS):
        return columns
    return {name: [_in_two_lines(cell) for cell in column] for name, column in columns.items()}


def _in_two_lines(cell: str) -> str:
    return cell.replace(" → ", "\n→ ").replace(" (", "\n(")


def cells(one: VariantChange) -> list[str]:
    """A variant's row: before and after."""
    before, after = one.before or Numbers(), one.after or Numbers()
    latency = _pair(before.p50_ms, after.p50_ms, _milliseconds)
    return [
        one.variant,
        one.change if after.verdict in {"shipped", ""} else f"{one.change} ({after.verdict})",
        _pair(before.size_bytes, after.size_bytes, size_text),
        _pair(before.accuracy, after.accuracy, number_text),
        latency if one.is_same_machine else f"{latency} (other machine)",
    ]


def _milliseconds(value: float) -> str:
    return number_text(value, 3, " ms")


def _pair(before: float | None, after: float | None, text: Callable[[float], str]) -> str:
    shown = ["–" if value is None else text(value) for value in (before, after)]
    return shown[0] if shown[0] == shown[1] else " → ".join(shown)
