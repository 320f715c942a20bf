"""`edge-runtime describe`: what a release takes and answers, and what of it fits this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from edge_runtime.cli.options import Release, Slot, Tuned
from edge_runtime.cli.output import Json, print_json
from edge_runtime.contract.errors import ContractError, printable

if TYPE_CHECKING:
    from edge_runtime.contract.tensor import InputSpec, Shape
    from edge_runtime.inference.description import Answered, Description, Offered
    from edge_runtime.inference.tuned_settings import TunedSettings

app = typer.Typer()

_NOT_CHECKED: Final = "whether that key is trusted is checked on devices, not here"


@app.command()
def describe(
    release: Release,
    *,
    tuned: Tuned = None,
    slot: Slot = None,
    as_json: Json = False,
) -> None:
    """Say what a release takes and answers, and which variant is taken here, as tuned; no model is loaded."""
    import msgspec

    found = _described(release, slot, tuned)
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        _print(found)


def _described(release: Path, slot: str | None, tuned: Path | None) -> Description:
    from edge_runtime.contract.layout import LayoutFolder
    from edge_runtime.inference.description import describe as description_of
    from edge_runtime.installed import installed_builds, slot_of

    if (mine := slot_of(release, slot)) is None:
        layout = LayoutFolder(release)
        return description_of(layout.open(), layout, folder=release, tuned=tuned)
    builds = installed_builds(release)
    if (build := builds.get(mine)) is None:
        because = f"nothing is installed in slot {mine} of {release}"
        raise ContractError(f"describe {release}", because, f"name one of {', '.join(builds)}")
    return description_of(build.release, build.source, installed=build.activation.variant, tuned=tuned)


def _print(found: Description) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    for title, lines in _sections(found):
        for number, line in enumerate(lines):
            rows.add_row(Text("" if number else title), Text(printable(line)))
    console = Console()
    console.print(rows)
    variants = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("variant", "engine", "precision", "size", "here"):
        variants.add_column(name, no_wrap=name in {"variant", "size"}, justify="right" if name == "size" else "left")
    for one in found.variants:
        variants.add_row(*map(Text, map(printable, _cells(one))))
    console.print()
    console.print(variants)


def _sections(found: Description) -> Iterator[tuple[str, list[str]]]:
    """Title and lines of everything but the variants; what a release does not have is left out."""
    yield "release", [f"{found.name} {found.version}, {found.task}, licence {found.licence}"]
    yield "digest", [found.digest]
    yield "takes", [_taken(spec) for spec in found.inputs]
    yield "answers", [_answered(one) for one in found.outputs]
    if found.axes:
        yield "sizes", [", ".join(f"{name} {axis.min} to {axis.max}" for name, axis in found.axes.items())]
    yield "steps", [f"{name}: {', '.join(steps)}" for name, steps in found.preprocess.items() if steps]
    if found.states:
        names = ", ".join(f"{one.name} ({one.of_step or _shape(one.dtype, one.shape)})" for one in found.states)
        yield "states", [f"{names}, kept from call to call by a session"]
    if found.stream is not None:
        stream = found.stream
        most = "" if stream.max_sessions is None else f", at most {stream.max_sessions} sessions"
        yield "stream", [f"one {stream.unit} after the other{most}; a swap lets sessions {stream.on_swap}"]
    if found.golden is not None:
        checks = ", ".join(dict.fromkeys(f"{one.metric} against {one.against}" for one in found.golden.checks))
        personal = ", holds personal data" if found.golden.contains_personal_data else ""
        yield "golden", [f"{found.golden.count} questions{personal}: {checks or 'nothing is asked of the answers'}"]
    if found.reference is not None:
        yield "scores", [f"{found.reference.metric} {found.reference.value:.4f} on {found.reference.count} samples"]
    if found.signed is not None:
        keys = ", ".join(key[:12] for key in found.signed.keys)
        yield "signed", [f"by {keys} until {found.signed.expires[:10]} ({found.signed.file}); {_NOT_CHECKED}"]
    yield "tuned", [line for one in found.variants[:1] if one.place and one.tuned for line in _tuned(one.id, one.tuned)]
    yield "WAIVED", [f"{one.check}: {one.detail}" for one in found.waivers]


def _taken(spec: InputSpec) -> str:
    more = [spec.color or "", f"as {'/'.join(spec.accept)}"]
    if spec.sample_rate_hz is not None:
        more.insert(0, f"{spec.sample_rate_hz} Hz, {spec.channels or 1} channel{'s' * ((spec.channels or 1) > 1)}")
    if spec.range is not None:
        more.insert(0, f"from {spec.range[0]:g} to {spec.range[-1]:g}")
    return ", ".join([f"{spec.name}: {spec.kind}", _shape(spec.dtype, spec.shape), *filter(None, more)])


def _answered(one: Answered) -> str:
    output = one.output
    more = [f"{one.labels} labels" if one.labels is not None else "", output.unit or ""]
    more.append(f"numbers as {output.raw}" if output.raw else "")
    return ", ".join([f"{output.name}: {output.kind}", *filter(None, more)])


def _tuned(variant: str, settings: TunedSettings) -> Iterator[str]:
    yield f"{variant}: {settings}"
    if settings.because:
        yield settings.because


def _shape(dtype: str | None, shape: Shape) -> str:
    return f"{dtype or ''} [{', '.join(map(str, shape))}]".strip()


def _cells(one: Offered) -> Sequence[str]:
    fits = f"fits, {_ordinal(one.place)} choice" if one.place else one.because
    size = f"{one.size_bytes / 1024:.0f} KiB" if one.size_bytes else ""
    return one.id, one.engine, one.precision, size, fits


def _ordinal(place: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(place, f"{place}th")
