"""The few elements the console is built of; every text goes through labels, which never read it as HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from nicegui import ui
from nicegui.element import Element

from fleet_server.console.words import Mark, age, span, utc

_Key = TypeVar("_Key")
_Data = TypeVar("_Data")


def block(classes: str = "", tag: str = "div") -> Element:
    """An element to put others into."""
    return ui.element(tag).classes(classes)


def text(value: str, classes: str = "") -> ui.label:
    """Some words."""
    return ui.label(value).classes(classes)


def icon(name: str, classes: str = "") -> None:
    """A sign that says nothing a word beside it does not say."""
    ui.icon(name).classes(classes).props("aria-hidden=true")


def badge(mark: Mark, classes: str = "") -> None:
    """A state: its sign, its word, its tone."""
    with block(f"badge tone-{mark.tone} {classes}"):
        icon(mark.icon)
        text(mark.word)


def ago(at: float | None, now: float, classes: str = "") -> None:
    """How long ago something was; the page's script keeps counting."""
    if at is None:
        text("never", classes)
        return
    shown = text(age(now - at), f"when {classes}")
    shown.props["data-ago"] = f"{at:.3f}"
    shown.props["title"] = utc(at)


def left(at: float, now: float, classes: str = "") -> None:
    """How much time is left; the page's script keeps counting."""
    shown = text(f"{span(at - now)} left" if at > now else f"{span(now - at)} over", f"when {classes}")
    shown.props["data-left"] = f"{at:.3f}"
    shown.props["title"] = utc(at)


def command(line: str) -> None:
    """A command to type."""
    text(line, "command")


class Section(Generic[_Data]):
    """A part of the page that is built anew only when what it shows has changed."""

    def __init__(self, build: Callable[[_Data], None], classes: str = "") -> None:
        self._build = build
        self._shown: _Data | None = None
        self._container = block(classes)

    def show(self, data: _Data) -> None:
        """Show this from now on."""
        if data != self._shown:
            self._shown = data
            self._container.clear()
            with self._container:
                self._build(data)


class Rows(Generic[_Key, _Data]):
    """A list of which only the rows that have changed are built anew."""

    def __init__(self, build: Callable[[_Data], None], container: Element, *, tag: str, classes: str = "") -> None:
        self._build = build
        self._container = container
        self._tag = tag
        self._classes = classes
        self._rows: dict[_Key, tuple[_Data, Element]] = {}

    def show(self, rows: Sequence[tuple[_Key, _Data]]) -> None:
        """Show these rows in this order."""
        if [key for key, _ in rows] != list(self._rows):
            self._container.clear()
            self._rows = {}
            with self._container:
                for key, data in rows:
                    row = block(self._classes, self._tag)
                    self._fill(row, data)
                    self._rows[key] = (data, row)
            return
        for key, data in rows:
            shown, row = self._rows[key]
            if shown != data:
                row.clear()
                self._fill(row, data)
                self._rows[key] = (data, row)

    def _fill(self, row: Element, data: _Data) -> None:
        with row:
            self._build(data)


def table(headings: Sequence[str], classes: str = "") -> Element:
    """A table's body, under these headings; on a narrow screen each row becomes a card."""
    with block("table-wrap"), block(f"table {classes}", "table"):
        with block(tag="thead"), block(tag="tr"):
            for heading in headings:
                with block(tag="th"):
                    text(heading)
        return block(tag="tbody")


def cell(heading: str, classes: str = "") -> Element:
    """A cell; its heading is shown beside it on a narrow screen."""
    made = block(classes, "td")
    made.props["data-label"] = heading
    return made
