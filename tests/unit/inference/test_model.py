"""Opening a release and asking it: which variant runs, and what no engine must ever see."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edge_runtime import Model
from edge_runtime.contract.digest import digest_of, hex_of
from edge_runtime.contract.errors import ContractError, DigestMismatch, InferenceError
from edge_runtime.contract.golden import Truth
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.contract.release import GoldenCheck
from edge_runtime.inference.answer_files import answer_files
from edge_runtime.inference.blame import BadInput
from edge_runtime.inference.checks.golden import pack_golden, pack_own
from edge_runtime.inference.opening import estimate_peak_bytes
from edge_runtime.inference.postprocessing.rendering import as_json
from edge_runtime.inference.postprocessing.results import Classes
from edge_runtime.inference.preprocessing.values import one_by_one
from tests.fakes.models import (
    WEIGHTS,
    Build,
    SpyBackend,
    four_pixel_classifier,
    uint8_four_pixel_classifier,
    write_release,
)

BRIGHT_TWO = np.array([[0, 0], [255, 0]], dtype=np.uint8)[None, :, :, None]
ONLY_ORT = ["onnxruntime"]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_release_answers_an_array_with_its_label(tmp_path) -> None:
    digest = write_release(tmp_path, [Build("ort-fp32")])

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        answer = model.infer({"image": BRIGHT_TWO})["classes"]

    assert isinstance(answer, Classes)
    assert answer.labels == ("two", "zero")
    assert answer.scores[0] == pytest.approx(np.exp(2) / (np.exp(2) + 3))
    assert model.release_digest == digest
    assert model.variant_id == "ort-fp32"


def test_an_encoded_image_and_its_pixels_get_the_same_answer(tmp_path) -> None:
    write_release(tmp_path, [Build("ort-fp32")])

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        assert model.infer({"image": png(BRIGHT_TWO[0, :, :, 0])}) == model.infer({"image": BRIGHT_TWO})


def test_a_variant_that_absorbs_normalisation_gives_the_same_answer_as_one_that_does_not(tmp_path) -> None:
    builds = [Build("plain"), Build("absorbing", content=uint8_four_pixel_classifier(), absorbs=("norm", "layout"))]
    write_release(tmp_path, builds)

    answers = []
    for name in ("plain", "absorbing"):
        with Model.open(tmp_path, variant=name, backends=ONLY_ORT) as model:
            answers.append(model.infer({"image": BRIGHT_TWO}))

    assert answers[0] == answers[1]


def test_a_batch_is_answered_in_order(tmp_path) -> None:
    write_release(tmp_path, [Build("ort-fp32")])
    batch = np.concatenate([BRIGHT_TWO, BRIGHT_TWO[:, ::-1]])

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        tops = [answer["classes"].top for answer in model.infer_batch({"image": batch})]
        with pytest.raises(InferenceError, match="use infer_batch"):
            model.infer({"image": batch})

    assert tops == [2, 0]


def test_samples_are_given_one_by_one_as_well_encoded_or_not_as_clients_give_them(tmp_path) -> None:
    write_release(tmp_path, [Build("ort-fp32")])
    encoded = [png(BRIGHT_TWO[0, :, :, 0]), png(BRIGHT_TWO[0, ::-1, :, 0])]

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        tops = [answer["classes"].top for answer in model.infer_batch({"image": encoded})]
        mixed = [answer["classes"].top for answer in model.infer_batch({"image": [encoded[1], BRIGHT_TWO]})]
        for given in ([], [b"no picture"], [None]):
            with pytest.raises(BadInput):
                model.infer_batch({"image": given})

    assert (tops, mixed) == ([2, 0], [0, 2])


def test_inputs_of_which_there_are_not_as_many_each_are_refused() -> None:
    with pytest.raises(BadInput, match=r"they hold \[1, 2\] samples"):
        list(one_by_one({"image": [b"", b""], "x": np.zeros((1, 3))}))
    with pytest.raises(BadInput, match=r"they hold \[0, 2\] samples"):
        list(one_by_one({"image": [b"", b""], "x": b"one"}))


def test_outputs_are_named_in_a_list_not_in_one_text(tmp_path) -> None:
    write_release(tmp_path, [Build("ort-fp32")])

    with Model.open(tmp_path, backends=ONLY_ORT) as model, pytest.raises(BadInput, match=r"a list: \['logits'\]"):
        model.infer_tensors({"image": BRIGHT_TWO}, outputs="logits")


def test_whose_engine_is_missing_is_told_what_to_install_and_who_forbade_it_what_to_allow(tmp_path) -> None:
    write_release(tmp_path, [Build("a", engine="litert")])

    with pytest.raises(InferenceError, match=r"has no litert\); pip install 'edgefleet\[litert\]', or build"):
        Model.open(tmp_path, registry={"onnxruntime": SpyBackend()})
    with pytest.raises(InferenceError, match=r"allow litert \(--backend\), or build") as forbidden:
        Model.open(tmp_path, backends=ONLY_ORT)

    assert "pip" not in str(forbidden.value)


def test_a_variant_that_fails_to_load_gives_way_to_the_next_and_is_named(tmp_path) -> None:
    write_release(tmp_path, [Build("a-broken", content=four_pixel_classifier()[:60]), Build("b-sound")])

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        assert model.variant_id == "b-sound"
        (skipped,) = model.skipped

    assert (skipped.variant, skipped.code) == ("a-broken", "load_failed")


def test_a_variant_for_another_processor_is_not_tried(tmp_path) -> None:
    spy = SpyBackend()
    write_release(tmp_path, [Build("other", arch=("s390x",)), Build("mine")])

    with Model.open(tmp_path, registry={"onnxruntime": spy}) as model:
        assert model.variant_id == "mine"

    assert len(spy.parsed) == 1
    assert "s390x" in model.skipped[0].because


def test_when_nothing_fits_every_reason_is_said_at_once(tmp_path) -> None:
    write_release(tmp_path, [Build("a", arch=("s390x",)), Build("b", engine="abacus")])

    with pytest.raises(
        InferenceError, match=r"b: abacus is not allowed by --backend; a: it is built for s390x"
    ) as caught:
        Model.open(tmp_path, backends=ONLY_ORT)

    assert caught.value.code == "no_variant"


def test_a_variant_nobody_built_is_refused_with_the_names_that_exist(tmp_path) -> None:
    write_release(tmp_path, [Build("ort-fp32")])

    with pytest.raises(InferenceError, match="choose one of ort-fp32"):
        Model.open(tmp_path, variant="ort-int8")


@pytest.mark.parametrize("damage", ["one bit", "truncated", "longer"])
def test_a_model_file_that_is_not_the_promised_one_never_reaches_an_engine(tmp_path, damage: str) -> None:
    spy = SpyBackend()
    build = Build("ort-fp32")
    write_release(tmp_path, [build])
    path = tmp_path / "blobs" / "sha256" / hex_of(digest_of(build.content))
    content = build.content
    path.write_bytes(
        {"one bit": bytes([content[0] ^ 1]) + content[1:], "truncated": content[:-1], "longer": content + b"x"}[damage]
    )

    with pytest.raises(DigestMismatch, match=r"model\.onnx|larger than"):
        Model.open(tmp_path, registry={"onnxruntime": spy})

    assert spy.parsed == []


def test_a_sound_model_file_does_reach_the_engine(tmp_path) -> None:
    spy = SpyBackend()
    build = Build("ort-fp32")
    write_release(tmp_path, [build])

    Model.open(tmp_path, registry={"onnxruntime": spy}).close()

    assert spy.parsed == [build.content]


def test_an_unknown_input_is_refused_with_the_names_of_those_the_model_takes(tmp_path) -> None:
    write_release(tmp_path, [Build("ort-fp32")])

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        with pytest.raises(InferenceError, match="no such input; it takes image"):
            model.infer({"picture": BRIGHT_TWO})
        with pytest.raises(InferenceError, match="input image is missing"):
            model.infer({})


def test_a_folder_that_is_no_release_is_one_clear_error(tmp_path) -> None:
    with pytest.raises(ContractError, match=r"there is no index\.json in it"):
        Model.open(tmp_path)


def golden_release(tmp_path, *, weights=WEIGHTS, own_scale: float | None = None) -> None:
    """The golden set says what the right model answers; `weights` is the model that is really shipped."""
    logits = np.array([[0, 0, 2, 0]], dtype=np.float32)
    samples = [{"image": BRIGHT_TWO}]
    golden = pack_golden(samples, [{"logits": logits}], Truth(labels={"classes": [2]}))
    own = None if own_scale is None else pack_own([{"logits": logits * own_scale}])
    checks = [
        GoldenCheck(against="own", metric="snr_db", on="logits", min=30.0),
        GoldenCheck(against="float", metric="snr_db", on="logits", min=15.0),
        GoldenCheck(against="truth", metric="top1", min=1.0),
    ]
    build = Build("ort-fp32", content=four_pixel_classifier(weights.astype(np.float32)), own=own)
    write_release(tmp_path, [build], golden=golden, checks=checks, golden_count=1)


def verdicts(tmp_path) -> list[bool]:
    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        return [check.passed for check in model.golden_check()]


def test_the_right_model_passes_its_golden_set(tmp_path) -> None:
    golden_release(tmp_path)

    assert verdicts(tmp_path) == [True, True, True]


def test_a_model_that_answers_another_class_fails_all_three_references(tmp_path) -> None:
    golden_release(tmp_path, weights=np.roll(WEIGHTS, 1, axis=1))

    assert verdicts(tmp_path) == [False, False, False]


def test_silicon_that_computes_its_own_model_wrongly_fails_own_alone(tmp_path) -> None:
    golden_release(tmp_path, own_scale=0.9)

    assert verdicts(tmp_path) == [False, True, True]


def test_a_release_without_golden_set_has_nothing_to_check(tmp_path) -> None:
    write_release(tmp_path, [Build("ort-fp32")])

    assert verdicts(tmp_path) == []


def test_files_are_answered_one_by_one(tmp_path) -> None:
    write_release(tmp_path / "release", [Build("ort-fp32")])
    (tmp_path / "a.png").write_bytes(png(BRIGHT_TWO[0, :, :, 0]))
    np.save(tmp_path / "b.npy", BRIGHT_TWO)

    with Model.open(tmp_path / "release", backends=ONLY_ORT) as model:
        answers = list(answer_files(model, [tmp_path / "a.png", tmp_path / "b.npy"]))

    (first, from_picture), (second, from_array) = answers
    assert (first.name, second.name) == ("a.png", "b.npy")
    assert from_picture == from_array
    assert not isinstance(from_picture, InferenceError)
    assert as_json(from_picture["classes"])[0]["label"] == "two"


def test_a_file_without_an_answer_is_named_and_the_next_is_answered(tmp_path) -> None:
    write_release(tmp_path / "release", [Build("ort-fp32")])
    (tmp_path / "good.png").write_bytes(png(BRIGHT_TWO[0, :, :, 0]))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.npy").write_text("no array")
    names = ["missing.png", "text.png", "text.npy", "good.png"]

    with Model.open(tmp_path / "release", backends=ONLY_ORT) as model:
        answers = [answer for _, answer in answer_files(model, [tmp_path / name for name in names])]

    for name, answer in zip(names[:3], answers[:3], strict=True):
        assert str(answer).startswith(f"cannot answer {tmp_path / name}: ")
        assert " at 0x" not in str(answer)
    assert not isinstance(answers[3], InferenceError)


def test_samples_of_one_file_are_named_after_their_place_in_it(tmp_path) -> None:
    write_release(tmp_path / "r", [Build("ort-fp32")])
    pictures = np.zeros((2, 2, 2, 1), np.uint8)
    pictures[0, 0, 1], pictures[1, 1, 0] = 9, 9
    np.save(tmp_path / "two.npy", pictures)

    with Model.open(tmp_path / "r", backends=ONLY_ORT) as model:
        answers = list(answer_files(model, [tmp_path / "two.npy"]))

    assert [path.name for path, _ in answers] == ["two.npy[0]", "two.npy[1]"]
    assert [answer["classes"].top for _, answer in answers] == [1, 2]


def test_memory_is_estimated_from_the_files_when_nobody_measured_it(tmp_path) -> None:
    build = Build("ort-fp32")

    assert estimate_peak_bytes(build.manifest()) == 2 * len(build.content)


def test_a_release_already_read_is_opened_from_any_source_of_blobs(tmp_path) -> None:
    write_release(tmp_path, [replace(Build("x"), id="ort-fp32")])
    folder = LayoutFolder(tmp_path)

    with Model.open((folder.open(), folder), backends=ONLY_ORT) as model:
        assert model.variant_id == "ort-fp32"


def test_a_classifier_of_pictures_loads_no_code_for_sounds_tables_or_detectors(tmp_path) -> None:
    write_release(tmp_path, [Build("ort-fp32")])
    parts = ("audio_steps", "wav", "table_steps", "detect", "priors", "suppression", "segment")
    program = (
        "import sys; from edge_runtime import Model; import numpy as np;"
        f"Model.open({str(tmp_path)!r}).infer({{'image': np.zeros((2, 2, 1), np.uint8)}});"
        f"print([part for part in {parts!r} if 'edge_runtime.inference.' + part in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300)

    assert done.stdout == "[]\n"


def test_importing_the_runtime_loads_neither_numpy_nor_an_engine() -> None:
    program = (
        "import sys, edge_runtime, edge_runtime.contract.release;"
        "print(sorted({'numpy', 'PIL', 'onnxruntime', 'openvino'} & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300)

    assert done.stdout == "[]\n"


def test_a_model_is_shown_by_its_name_and_not_by_all_it_holds(tmp_path) -> None:
    write_release(tmp_path, [Build("ort-fp32")])

    with Model.open(tmp_path, backends=ONLY_ORT) as model:
        text = repr(model)

    assert model.release.manifest.version in text
    assert model.variant.manifest.id in text
    assert len(text) < 120
