"""`edge-runtime pipeline` as people run it: real files, a real broker, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edge_runtime.cli.main import assemble
from edge_runtime.contract.errors import EdgeError
from edge_runtime.pipelines import opening
from edge_runtime.pipelines.description import VideoSource
from edge_runtime.pipelines.opening import open_pipeline, plan_pipeline
from edge_runtime.pipelines.reading import read_description
from edge_runtime.pipelines.records import Record
from edge_runtime.pipelines.sources.capture import open_video
from tests.fakes.broker_lab import BrokerLab, running_broker, up
from tests.fakes.installed import write_state
from tests.fakes.mqtt_client import eventually
from tests.fakes.pipelines import write_video
from tests.fakes.pixels import picture, write_pixels
from tests.fakes.ports import free_port
from tests.fakes.tuned import tuned_here

ROOT = Path(__file__).resolve().parents[3]
CALLED: list[Record] = []


def take(record: Record) -> None:
    """What a pipeline's callback sink names in these tests."""
    CALLED.append(record)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "pixels"
    write_pixels(folder, "1.0.0")
    return folder


def photos(folder: Path, count: int = 4) -> Path:
    """Pictures of four tiles, each with another bright pixel."""
    folder.mkdir(exist_ok=True)
    tiles = [picture(brightest)[:, :, 0] for brightest in range(4)]
    mosaic = np.block([[tiles[0], tiles[1]], [tiles[2], tiles[3]]])
    for number in range(count):
        Image.fromarray(mosaic).save(folder / f"{number:03d}.png")
    return folder


def write(folder: Path, release: Path, sinks: str, *, source: str = 'kind = "folder"\npath = "photos"') -> Path:
    path = folder / "tiles.toml"
    path.write_text(f"""
[sources.door]
{source}
[crops.tile]
kind = "grid"
from = "door"
rows = 2
columns = 2
[models.pixels]
release = "{release}"
from = "tile"
backends = ["onnxruntime"]
{sinks}
""")
    return path


def ran(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(assemble(), ["pipeline", *map(str, arguments)])
    if isinstance(result.exception, EdgeError):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_of_pictures_goes_through_tiles_and_model_into_every_file(tmp_path: Path, release: Path) -> None:
    photos(tmp_path / "photos")
    path = write(tmp_path, release, """
[sinks.lines]
kind = "jsonl"
path = "out/records.jsonl"
[sinks.drawn]
kind = "pictures"
path = "out/drawn"
format = "png"
[sinks.table]
kind = "table"
""")  # fmt: skip

    code, output, summary = ran(path, "--stages")

    records = lines(tmp_path / "out" / "records.jsonl")
    assert code == 0
    assert [[one["answer"]["classes"][0]["label"] for one in record["findings"]] for record in records] == [
        ["zero", "one", "two", "three"]
    ] * 4
    assert records[2]["findings"][3]["crop"] == {"crops": "tile", "index": 3, "box": [2, 2, 4, 4]}
    assert len(list((tmp_path / "out" / "drawn").iterdir())) == 4
    assert output.count("pixels 4") == 4
    assert "tiles: 4 frames in " in summary
    assert "delivered 4 to lines, 4 to drawn, 4 to table" in summary


def test_a_pipeline_says_what_it_takes_of_what_was_tuned(tmp_path: Path, release: Path) -> None:
    tuned_here(release, tmp_path / "tuned", threads=2, batch=4)
    photos(tmp_path / "photos", 1)
    file = write(tmp_path, release, '[sinks.out]\nkind = "table"\n')
    file.write_text(file.read_text().replace("[models.pixels]", '[models.pixels]\ntuned = "tuned"'))

    _, _, stderr = ran(file)

    assert "with 2 threads per call (tuned here on 2026-11-24 with onnxruntime" in stderr


def test_a_folder_of_the_command_is_for_models_that_name_none(tmp_path: Path, release: Path) -> None:
    tuned_here(release, tmp_path / "tuned", threads=2, batch=4)
    photos(tmp_path / "photos", 1)
    silent = write(tmp_path, release, '[sinks.out]\nkind = "table"\n')
    _, _, taken = ran(silent, "--tuned", tmp_path / "tuned")
    named = write(tmp_path, release, '[sinks.out]\nkind = "table"\n')
    named.write_text(named.read_text().replace("[models.pixels]", '[models.pixels]\ntuned = "none"'))

    _, _, stays = ran(named, "--tuned", tmp_path / "tuned")

    assert "with 2 threads per call (tuned here on 2026-11-24 with onnxruntime" in taken
    assert "tuned here" not in stays


def test_a_plan_holds_crops_against_the_labels_of_the_release(
    tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[object] = []
    monkeypatch.setattr(opening, "plan", lambda *given: heard.append(given[2]))
    path = write(tmp_path, release, '[sinks.table]\nkind = "table"')

    opening.plan_pipeline(read_description(path), tmp_path)

    assert heard == [{"pixels": {"classes": ("zero", "one", "two", "three")}}]


def test_a_plan_is_shown_without_opening_anything(tmp_path: Path, release: Path) -> None:
    path = write(tmp_path, release, '[sinks.table]\nkind = "table"', source='kind = "files"\npaths = ["none.png"]')

    code, output, _ = ran(path, "--dry-run")

    assert code == 0
    assert output.splitlines() == [
        "door (every frame)",
        "  1  cut tile: 2 × 2 tiles of the picture",
        "  2  ask pixels about each of tile",
        "table gets what pixels found in door",
    ]
    assert json.loads(ran(path, "--dry-run", "--json")[1])["routes"][0]["source"] == "door"


def test_a_broken_picture_is_counted_named_and_seen_in_the_exit_code(tmp_path: Path, release: Path) -> None:
    (photos(tmp_path / "photos", 2) / "001.png").write_bytes(b"torn")
    path = write(tmp_path, release, '[sinks.lines]\nkind = "jsonl"\npath = "r.jsonl"')

    code, output, said = ran(path, "--json")

    report = json.loads(output)
    assert code == 1
    assert len(lines(tmp_path / "r.jsonl")) == 1
    assert [stage["failed"] for stage in report["stages"]] == [1, 0, 0]
    assert (report["is_complete"], report["lost"]) == (False, 1)
    assert report["summary"].count("1 unreadable (door)") == 1
    assert "001.png" in said


def test_a_function_is_called_only_when_its_code_is_trusted(tmp_path: Path, release: Path) -> None:
    photos(tmp_path / "photos", 3)
    path = write(tmp_path, release, f'[sinks.mine]\nkind = "callback"\nfunction = "{__name__}:take"')
    CALLED.clear()

    with pytest.raises(EdgeError, match=r"it imports and runs .*:take; read that code, then add --trust-code"):
        ran(path)
    assert CALLED == []

    assert ran(path, "--trust-code")[0] == 0
    assert [record.labels("pixels") for record in CALLED] == [("zero", "one", "two", "three")] * 3


def test_a_function_beside_the_file_is_found_and_pictures_left_out_are_not_counted(
    tmp_path: Path, release: Path
) -> None:
    photos(tmp_path / "photos", 3)
    (tmp_path / "beside_it.py").write_text("def take(record): print('took', record.frame.number)\n")
    sinks = '[sinks.mine]\nkind = "callback"\nfunction = "beside_it:take"\n'
    path = write(tmp_path, release, sinks + '[sinks.drawn]\nkind = "pictures"\npath = "drawn"\nevery = 2')

    code, output, summary = ran(path, "--trust-code")

    assert code == 0
    assert output.splitlines() == ["took 0", "took 1", "took 2"]
    assert "delivered 3 to mine, 2 to drawn" in summary
    assert len(list((tmp_path / "drawn").iterdir())) == 2


def test_a_video_goes_in_and_an_annotated_one_comes_out(tmp_path: Path, release: Path) -> None:
    grey = [np.full((16, 16, 3), 20 * number, np.uint8) for number in range(12)]
    write_video(tmp_path / "door.avi", grey)
    text = write(tmp_path, release, '[sinks.v]\nkind = "video"\npath = "out/v.mp4"\n',
                 source='kind = "video"\npath = "door.avi"')  # fmt: skip
    text.write_text(text.read_text().replace("rows = 2\ncolumns = 2", "rows = 8\ncolumns = 8"))

    code, _, said = ran(text)

    assert code == 0
    assert "12 to v" in said
    out = open_video("v", VideoSource(path=tmp_path / "out" / "v.mp4"), lambda: 0.0)
    assert len(list(out.frames(threading.Event()))) == 12


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerLab]:
    with running_broker("embedded", tmp_path_factory.mktemp("broker")) as lab:
        yield lab


def mqtt(lab: BrokerLab, person: Any) -> str:
    certificate = person.certificate
    return f"""
[sinks.broker]
kind = "mqtt"
host = "127.0.0.1"
port = {lab.settings.port}
client_id = "{person.client_id}"
topic = "{up(person, "event")}"
ca_file = "{lab.ca.ca_file}"
cert_file = "{certificate.cert_file}"
key_file = "{certificate.key_file}"
"""


def test_every_record_of_a_file_reaches_the_broker(tmp_path: Path, release: Path, lab: BrokerLab) -> None:
    photos(tmp_path / "photos", 40)
    person = lab.device("camera")
    with lab.join(lab.server(), up(person, "event")) as listener:
        code, _, said = ran(write(tmp_path, release, mqtt(lab, person)))

        assert eventually(lambda: len(listener.messages) == 40)
        records = [json.loads(message.payload) for message in listener.messages]

    assert code == 0, said
    assert [record["frame"] for record in records] == list(range(40))
    assert "40 to broker" in said


def test_ctrl_c_finishes_what_is_under_way_and_says_so_in_one_line(tmp_path: Path, release: Path) -> None:
    photos(tmp_path / "photos", 3)
    watched = 'kind = "folder"\npath = "photos"\nwatch = true\npoll_s = 0.05'
    path = write(tmp_path, release, '[sinks.lines]\nkind = "jsonl"\npath = "r.jsonl"', source=watched)
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_runtime.cli", "pipeline", str(path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    records = tmp_path / "r.jsonl"
    assert eventually(lambda: records.exists() and len(lines(records)) == 3, 60)

    process.send_signal(signal.SIGINT)
    output, said = process.communicate(timeout=30)

    assert process.returncode == 0, said
    assert output == ""
    (line,) = said.splitlines()
    assert line.startswith("tiles: 3 frames in ")


def test_a_broker_that_is_away_costs_its_records_and_nothing_else(tmp_path: Path, release: Path) -> None:
    photos(tmp_path / "photos", 5)
    away = f'[sinks.broker]\nkind = "mqtt"\nhost = "127.0.0.1"\nport = {free_port()}\n'
    watched = 'kind = "folder"\npath = "photos"\nwatch = true\npoll_s = 0.05'
    path = write(tmp_path, release, away + '[sinks.lines]\nkind = "jsonl"\npath = "r.jsonl"', source=watched)
    told: list[str] = []
    pipeline = open_pipeline(plan_pipeline(read_description(path), tmp_path), told.append)
    running = threading.Thread(target=pipeline.run)
    running.start()
    records = tmp_path / "r.jsonl"
    assert eventually(lambda: records.exists() and len(lines(records)) == 5, 30)

    pipeline.stop()
    running.join(15)

    assert not running.is_alive()
    broker, files = pipeline.report().of("sink")
    assert (broker.done, broker.failed, files.done, files.failed) == (0, 5, 5, 0)
    assert told[0].startswith("sink broker: broker 127.0.0.1:")
    assert told[0].endswith("cannot be reached; it is tried again")


def test_what_an_agent_runs_answers_in_a_pipeline_and_needs_no_opencv(
    tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path / "photos", 2)
    state = write_state(tmp_path / "state", release)
    sinks = '[sinks.lines]\nkind = "jsonl"\npath = "r.jsonl"'
    video = write(tmp_path, state, sinks, source='kind = "video"\npath = "door.avi"').rename(tmp_path / "video.toml")
    path = write(tmp_path, state, sinks)
    (tmp_path / "door.avi").write_bytes(b"a video")
    monkeypatch.setitem(sys.modules, "cv2", None)

    assert ran(path)[0] == 0
    assert len(lines(tmp_path / "r.jsonl")) == 2
    with pytest.raises(EdgeError, match=r"cannot open source door: OpenCV is not installed; pip install .*vision"):
        ran(video)
