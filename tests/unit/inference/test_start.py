"""What a first answer has to wait for: each program imports what it uses, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes.models import Build, write_release
from tests.fakes.pixels import write_source
from tests.fakes.probe import write_probe

TENSOR = "np.zeros((1, 3, 224, 224), np.float32)"


def imported_by(code: str) -> set[str]:
    """Names of all modules after a program has run."""
    program = f"{code}\nimport sys\nprint(*sys.modules)"
    nothing_tuned = {**os.environ, "XDG_STATE_HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300, env=nothing_tuned
    )
    return set(done.stdout.split("\n")[-2].split())


def of_ours(modules: set[str]) -> set[str]:
    return {name.removeprefix("edge_runtime.") for name in modules if name.startswith("edge_runtime.")}


@pytest.fixture(scope="module")
def tensor_answer(tmp_path_factory) -> set[str]:
    release = write_probe(tmp_path_factory.mktemp("probe"))
    return imported_by(
        "import numpy as np\nfrom edge_runtime import Model\n"
        f"Model.open({str(release)!r}, backends=['onnxruntime']).infer({{'x': {TENSOR}}})"
    )


def test_an_answer_to_a_tensor_waits_for_no_pictures_sounds_tests_or_command_line(tensor_answer: set[str]) -> None:
    foreign = {
        "PIL", "cv2", "typer", "rich", "tarfile", "zipfile", "asyncio", "logging", "json", "pydantic", "subprocess",
        "hashlib", "_hashlib", "dataclasses", "importlib.metadata", "tempfile", "shutil", "heapq", "queue", "copy",
        "signal", "threading",
    }  # fmt: skip
    parts = {
        "images", "image_steps", "opencv", "jpeg_header", "pictures", "geometry", "reduction",
        "agreement", "arrays", "drift", "finite", "prepared", "streams", "audio_steps", "table_steps",
        "detect", "segment", "sound_steps", "text_steps", "answer_steps", "question_steps", "plain_answers",
        "question_answers", "question_results", "stream_results", "rendering", "golden",
        "statistics", "waiting_line", "together", "rows", "sessions",
    }  # fmt: skip

    assert foreign & tensor_answer == set()
    asked = {name.rpartition(".")[2] for name in of_ours(tensor_answer)}
    assert "asker" in asked
    assert parts & asked == set()


ON_THE_WAY = {
    "contract": "codec device_profile digest errors ids layout reasons release steps target tensor "
    "variant_choice",
    "inference": "backend backends blame facts libraries model opening postprocessing predictor preprocessing "
    "requests tuned vendor_telemetry",
    "inference.backends": "onnxruntime",
    "inference.libraries": "onnxruntime_session",
    "inference.postprocessing": "postprocess results",
    "inference.preprocessing": "preprocess values",
    "inference.requests": "accounting admission asker direct",
}


def test_an_answer_to_a_tensor_waits_for_these_modules_of_ours_alone(tensor_answer: set[str]) -> None:
    on_the_way = {f"{package}.{name}" for package, names in ON_THE_WAY.items() for name in names.split()}

    # Each costs every start 0.1 ms and more: import it where it is used, or say here that no answer does without.
    assert of_ours(tensor_answer) - on_the_way == {"contract", "inference", "importing"}


def test_an_answer_to_a_tensor_wakes_one_engine_and_no_server_parts(tensor_answer: set[str]) -> None:
    assert {"openvino", "ai_edge_litert"} & tensor_answer == set()
    kept_out = ("update", "trust", "agent", "serving", "doors", "pipelines", "tuning", "cli")
    assert [name for name in of_ours(tensor_answer) if name.split(".")[0] in kept_out] == []


def test_an_answer_to_a_picture_waits_for_pillow_alone(tmp_path) -> None:
    write_release(tmp_path / "release", [Build("ort-fp32")])
    picture = next(write_source(tmp_path / "pictures").glob("*.png"))

    modules = imported_by(
        "from edge_runtime import Model\n"
        f"Model.open({str(tmp_path / 'release')!r}, backends=['onnxruntime'])"
        f".infer({{'image': open({str(picture)!r}, 'rb').read()}})"
    )

    assert "PIL.Image" in modules
    others = {"PIL.PngImagePlugin", "PIL.ImagePalette", "PIL.ImageSequence", "fractions", "zlib"}
    others |= {f"PIL.{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Ppm", "Tiff", "WebP")}
    others |= {"cv2", "tarfile", "typer", "subprocess", "hashlib", "base64", "encodings.utf_8_sig"}
    assert others & modules == set()
    asked = {name.rpartition(".")[2] for name in of_ours(modules)}
    assert "images" in asked
    assert {"opencv", "scaling", "segment", "detect", "golden_answers", "sound_steps", "states"} & asked == set()
    assert {"drift", "sketch", "lease", "tuned_choice", "text_steps"} & asked == set()
    assert {"jpeg_header", "reduction", "pictures", "geometry"} & asked == set(), "nothing is resized"


@pytest.mark.parametrize(
    ("codec", "mode", "readers"),
    [
        ("PNG", "RGB", set()),
        ("PNG", "RGBA", {"PIL.PngImagePlugin"}),
        ("BMP", "RGB", {"PIL.BmpImagePlugin"}),
        ("WEBP", "RGB", {"PIL.WebPImagePlugin"}),
        ("JPEG", "RGB", {"PIL.JpegImagePlugin"}),
    ],
)
def test_a_picture_is_read_by_the_one_reader_that_its_beginning_names(
    codec: str, mode: str, readers: set[str], tmp_path: Path
) -> None:
    Image.new(mode, (3, 2)).save(tmp_path / "picture", codec)

    modules = imported_by(
        "from edge_runtime.contract.image_steps import Decode\n"
        "from edge_runtime.inference.preprocessing.images import open_picture\n"
        "step = Decode(id='d', color='rgb', exif='apply', reduced='never')\n"
        f"content = open({str(tmp_path / 'picture')!r}, 'rb').read()\n"
        "with open_picture(content, step, ['webp', 'bmp', 'png', 'jpeg']) as picture:\n"
        "    assert picture.size == (3, 2)\n"
    )

    assert {name for name in modules if name.endswith("ImagePlugin")} == readers


def test_what_an_import_made_is_not_walked_over_in_the_first_answer() -> None:
    program = (
        "import gc\n{before}\nfrom edge_runtime import Model\n"
        "young, old = (sum(len(gc.get_objects(generation=one)) for one in ages) for ages in ((0, 1), (2,)))\n"
        "print(gc.isenabled(), young < old / 10, gc.get_freeze_count() > 0)"
    )

    def told(before: str) -> str:
        command = [sys.executable, "-c", program.format(before=before)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout

    assert told("") == "True True False\n"
    # Who froze objects of its own before, or wants no collection, keeps it so.
    assert told("gc.freeze(); gc.disable()").split() == ["False", "False", "True"]


def test_the_run_command_needs_neither_pydantic_nor_what_moves_updates(tmp_path: Path) -> None:
    release = write_probe(tmp_path / "release")
    code = (
        "import sys, numpy as np\n"
        f"np.save({str(tmp_path / 'x.npy')!r}, {TENSOR})\n"
        f"sys.argv = ['edge-runtime', 'run', {str(release)!r}, {str(tmp_path / 'x.npy')!r}, '--json', '--backend', "
        "'onnxruntime']\n"
        "from edge_runtime.cli.main import assemble\n"
        "assemble(*sys.argv[1:2])(standalone_mode=False)\n"
    )

    modules = imported_by(code)

    assert {"pydantic", "asyncio", "PIL", "cv2", "zipfile", "dataclasses", "hashlib", "rich"} & modules == set()
    needed = {"cli", "cli.main", "cli.options", "cli.output", "cli.run"}
    assert {name for name in of_ours(modules) if name.startswith("cli")} == needed
    kept_out = ("update", "trust", "agent", "serving", "doors", "pipelines", "tuning")
    assert [name for name in of_ours(modules) if name.split(".")[0] in kept_out] == []


def test_the_agent_imports_no_command_line() -> None:
    modules = imported_by("import edge_runtime.agent.__main__")

    # httpx brings click and rich along for a command line of its own.
    assert {"typer", "pydantic", "numpy", "PIL", "cv2", "onnxruntime"} & modules == set()
    assert [name for name in of_ours(modules) if name.startswith(("cli", "doors", "serving", "pipelines"))] == []


def test_a_model_that_was_warmed_up_has_the_readers_of_the_pictures_it_takes(tmp_path: Path) -> None:
    write_release(tmp_path / "release", [Build("ort-fp32")])

    loaded = imported_by(
        f"from edge_runtime import Model\nModel.open({str(tmp_path / 'release')!r}, backends=['onnxruntime']).warm_up()"
    )

    assert "PIL.PngImagePlugin" in loaded
    assert "PIL.JpegImagePlugin" not in loaded, "this one takes no JPEG"
