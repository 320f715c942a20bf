"""The doctor: each route works or says what adds what it lacks."""

from __future__ import annotations

import json

from converters.commands.toolchains import doctor_report
from converters.routes import ROUTES, diagnose

NOTHING = {kind: lambda _: False for kind in ("module", "toolchain", "program", "machine")}
ALL = {kind: lambda _: True for kind in NOTHING}


def test_where_everything_is_every_route_works() -> None:
    assert all(one.works for one in diagnose(ALL))


def test_where_nothing_is_every_need_comes_with_what_adds_it() -> None:
    found = diagnose(NOTHING)

    assert not any(one.works for one in found)
    assert all(need.remedy for one in found for need in one.missing)


def test_one_missing_toolchain_stops_only_the_routes_that_use_it() -> None:
    without = {**ALL, "toolchain": lambda name: name != "tflite-quant"}

    stopped = [one for one in diagnose(without) if not one.works]

    assert {one.route for one in stopped} == {"ONNX → LiteRT, int8", "TFLite → LiteRT, int8 from float"}
    assert stopped[0].missing[0].remedy == "edge-convert toolchain install tflite-quant"


def test_the_report_is_also_data() -> None:
    report = json.loads(doctor_report(as_json=True))

    assert [row["route"] for row in report["routes"]] == [route.name for route in ROUTES]
