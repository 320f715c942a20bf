"""A pipeline's file: typed, with errors that name the line and what would do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.contract.errors import ContractError
from edge_runtime.pipelines.description import BoxCrops, CameraSource, JsonlSink
from edge_runtime.pipelines.reading import read_description
from tests.fakes.pipelines import described

GOOD = """name = "entrance"

[sources.door]
kind = "camera"
device = 0
fps = 10

[models.faces]
release = "releases/faces"
from = "door"

[crops.face]
kind = "boxes"
from = "faces"
min_score = 0.5

[sinks.lines]
kind = "jsonl"
path = "out/records.jsonl"
"""


def test_a_file_becomes_typed_tables_with_paths_that_start_at_its_folder() -> None:
    description = described(GOOD)

    assert description.sources["door"] == CameraSource(device=0, fps=10)
    assert description.models["faces"].release == Path("/p/releases/faces")
    assert description.crops["face"] == BoxCrops(from_="faces", min_score=0.5)
    assert description.sinks["lines"] == JsonlSink(path=Path("/p/out/records.jsonl"))


def test_a_pipeline_without_a_name_is_called_as_its_file() -> None:
    assert described(GOOD.replace('name = "entrance"', "")).name == "entrance"


@pytest.mark.parametrize(
    ("old", "new", "because"),
    [
        ("fps = 10", "fsp = 10", r"line 6, sources\.door\.fsp: unknown key; write fps"),
        ("fps = 10", 'fps = "ten"', r"line 6, sources\.door\.fps: Expected 'float', got 'str'"),
        ("fps = 10", "fps = 0", r"line 6, sources\.door\.fps: Expected 'float' > 0"),
        ('kind = "camera"', 'kind = "camra"', r"line 4, sources\.door\.kind: 'camra' is no kind of sources; .*camera"),
        ('kind = "camera"', "", r"line 3, sources\.door\.kind: it does not say its kind"),
        ('release = "releases/faces"', "", r"line 8, models\.faces: Object missing required field 'release'"),
        ('release = "releases/faces"', "release = 3", r"line 9, models\.faces\.release: "),
        (
            'release = "releases/faces"',
            'release = "releases/faces"\nbackends = ["onnx"]',
            r"models\.faces\.backends: \['onnx'\] cannot stand there; write one of onnxruntime, openvino, litert",
        ),
        ("min_score = 0.5", "min_score = 1.5", r"line 15, crops\.face\.min_score: "),
        ("[sinks.lines]", "[sink.lines]", r"line 17, sink: unknown key; write sinks"),
        ('name = "entrance"', 'name = "Entrance hall"', r"line 1, name: 'Entrance hall' is no name"),
        ("[sources.door]", '[sources."The Door"]', r"line 3, sources\.The Door: 'The Door' is no name"),
        ("fps = 10", "fps = = 10", r"it is not TOML \(.*line 6"),
        ("fps = 10", "fps = " + "9" * 5000, r"it is not TOML \(.*digits"),
        ("fps = 10", "fps = " + "[" * 100_000, "nested too deeply"),
        ('"out/records.jsonl"', '"out\\u0000"', r"line 19, sinks\.lines\.path: no file's name holds a zero byte"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line_and_a_remedy(old: str, new: str, because: str) -> None:
    with pytest.raises(ContractError, match=because):
        described(GOOD.replace(old, new))


def test_a_choice_is_answered_with_what_may_stand_there() -> None:
    text = GOOD + 'max_bytes = 8192\n[sinks.broker]\nkind = "mqtt"\nhost = "localhost"\nqos = 2\n'

    with pytest.raises(ContractError, match=r"line 24, sinks\.broker\.qos: 2 cannot stand there; write one of 0, 1"):
        described(text)


@pytest.mark.parametrize("kind", ["sources", "models", "sinks"])
def test_a_pipeline_has_at_least_one_of_each(kind: str) -> None:
    name = {"sources": "door", "models": "faces", "sinks": "lines"}[kind]
    start = GOOD.index(f"[{kind}.{name}]")
    end = GOOD.find("\n[", start)

    with pytest.raises(ContractError, match=f"it has no {kind}"):
        described(GOOD[:start] + (GOOD[end:] if end >= 0 else ""))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"cannot read .*none\.toml: No such file"):
        read_description(tmp_path / "none.toml")


def test_a_key_inside_an_inline_table_is_found_on_its_line() -> None:
    text = GOOD.replace('[sinks.lines]\nkind = "jsonl"\npath = "out/records.jsonl"\n', "[sinks]\n")
    text += 'lines = { kind = "jsonl", path = "x", keep = -1 }\n'

    with pytest.raises(ContractError, match=r"line 18, sinks\.lines\.keep: "):
        described(text)
