"""Clients of the local door that ask so briskly that they share a thread."""

from __future__ import annotations

import pytest

from edge_runtime.client.local import LocalClient
from edge_runtime.doors import pace
from edge_runtime.doors.local.door import LocalDoor

PATIENCE_S = 30


def test_clients_of_the_door_that_ask_briskly_share_a_thread(door: LocalDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SHORT_S", 60.0)
    monkeypatch.setattr(pace, "OFTEN_S", 600.0)
    with (
        LocalClient(str(door.path)) as client,
        client.buffers("pixels", {"image": (1, 2, 2, 1)}) as one,
        client.buffers("pixels", {"image": (1, 2, 2, 1)}) as other,
    ):
        for _ in range(pace.WINDOW + 2):
            one["image"][...], other["image"][...] = 0, 255
            answers = one.infer()["logits"].tolist(), other.infer()["logits"].tolist()  # type: ignore[union-attr]

        assert len(door._round._members) == 2
        assert answers == ([[0] * 4], [[2] * 4])
        # Another question than before: back to a thread of its own, and the answer is as right.
        other["image"][...] = 0
        assert other.infer(("logits",))["logits"].tolist() == [[0] * 4]  # type: ignore[union-attr]
        assert len(door._round._members) == 1


def test_a_client_with_a_near_deadline_keeps_its_thread(door: LocalDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SHORT_S", 60.0)
    monkeypatch.setattr(pace, "OFTEN_S", 600.0)
    monkeypatch.setattr(pace, "HURRIED_US", 2 * PATIENCE_S * 1_000_000)
    with LocalClient(str(door.path)) as client, client.buffers("pixels", {"image": (1, 2, 2, 1)}) as buffers:
        for _ in range(pace.WINDOW + 2):
            buffers.infer(deadline_s=PATIENCE_S)
        assert not door._round._members

        for _ in range(pace.WINDOW + 2):
            buffers.infer(deadline_s=3 * PATIENCE_S)
        assert len(door._round._members) == 1


def test_closing_the_door_ends_those_who_share_a_thread(door: LocalDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SHORT_S", 60.0)
    monkeypatch.setattr(pace, "OFTEN_S", 600.0)
    with LocalClient(str(door.path)) as client, client.buffers("pixels", {"image": (1, 2, 2, 1)}) as buffers:
        for _ in range(pace.WINDOW + 2):
            buffers.infer()
        assert door._round._members

        door.stop(PATIENCE_S)

        assert door.statistics().connections == 0
        assert door.statistics().answered == pace.WINDOW + 4
