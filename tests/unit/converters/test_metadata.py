"""What other people's metadata says: fixtures as their writers write them, real files where they are at hand."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tomllib
import tracemalloc
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import BadModel
from converters.importers.onnx import describe
from converters.importers.tflite import import_tflite
from converters.model.source import Port, Stored
from converters.planning.recipe import parse_recipe
from converters.starter.from_model import starter_text
from converters.starter.metadata.facts import AnswerFacts, Facts, PictureFacts, contradictions, merge
from converters.starter.metadata.find import find_facts
from converters.starter.metadata.flatbuffer import Table
from converters.starter.metadata.huggingface import facts_of_huggingface
from converters.starter.metadata.openvino_model_info import facts_of_model_info, model_info_of_xml
from converters.starter.metadata.tflite import _labels
from converters.starter.metadata.ultralytics import facts_of_ultralytics
from tests.fakes.onnx_models import conv_classifier

YOLO = {"task": "detect", "stride": "32", "imgsz": "[640, 480]", "batch": "1", "license": "AGPL-3.0",
        "names": "{0: 'person', 1: \"dog's nose\"}"}  # fmt: skip


def yolo(shape, **changes) -> Facts:
    facts = facts_of_ultralytics({**YOLO, **changes}, [Port("output0", "float32", shape)])
    assert facts is not None
    return facts


@pytest.mark.parametrize(
    ("shape", "extra", "family", "score", "iou", "in_graph"),
    [
        ((1, 6, 8400), {}, "yolo_v8", "cls", 0.7, False),
        ((1, 25200, 7), {}, "yolo_v5", "obj*cls", 0.45, False),
        ((1, 300, 6), {"end2end": "True"}, "raw", "cls", 0.7, True),
    ],
)
def test_a_yolo_file_says_its_family_by_the_shape_of_its_output(shape, extra, family, score, iou, in_graph) -> None:
    facts = yolo(shape, **extra)

    assert facts.answer
    detect, nms = facts.answer.steps
    assert (detect["family"], detect["score"]) == (family, score)
    assert (nms["iou"], nms["in_graph"]) == (iou, in_graph)
    assert facts.labels == ("person", "dog's nose")


def test_a_yolo_file_says_how_its_pictures_are_letterboxed() -> None:
    picture = yolo((1, 6, 8400)).picture

    assert picture
    assert (picture.mode, picture.size) == ("fit_pad", (640, 480))
    assert (picture.pad_value, picture.pad_anchor) == (114.0, "center")
    assert (picture.color, picture.antialias, picture.std) == ("rgb", False, (255.0,))


def test_a_yolo_file_of_another_shape_or_task_says_so_instead_of_a_guess() -> None:
    assert yolo((1, 9, 8400)).notes == ("Ultralytics properties name 2 classes, output output0 has another shape",)
    assert "'pose'" in yolo((1, 56, 8400), task="pose").notes[0]
    assert facts_of_ultralytics({"author": "me"}, []) is None


@pytest.mark.parametrize("names", ["__import__('os').abort()", "{0: 'a', 2: 'b'}", "[" * 500, "{'x': 1}", ""])
def test_names_that_are_no_list_of_names_are_left_out(names: str) -> None:
    assert yolo((1, 6, 8400), names=names).labels == ()


def written(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_a_hugging_face_processor_resizes_crops_and_normalises(tmp_path: Path) -> None:
    config = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"shortest_edge": 256}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "do_rescale": True,
        "rescale_factor": 0.00392156862745098, "do_normalize": True, "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }  # fmt: skip

    picture = facts_of_huggingface(written(tmp_path / "preprocessor_config.json", config)).picture

    assert picture == PictureFacts(
        color="rgb", mode="shortest_side", size=(256, 256), filter="bicubic", antialias=True, crop=(224, 224),
        scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
    )  # fmt: skip


def test_a_hugging_face_processor_that_leaves_things_out_says_less(tmp_path: Path) -> None:
    plain = {"do_resize": True, "size": 224, "resample": 5, "do_rescale": False, "do_normalize": False}

    facts = facts_of_huggingface(written(tmp_path / "p.json", plain))

    assert facts.picture
    assert (facts.picture.mode, facts.picture.size, facts.picture.filter) == ("stretch", (224, 224), None)
    assert (facts.picture.scale, facts.picture.mean, facts.picture.std) == (1.0, (0.0,), (1.0,))
    assert "resample 5" in facts.notes[0]


def test_a_hugging_face_feature_extractor_says_its_sample_rate(tmp_path: Path) -> None:
    config = {"feature_extractor_type": "ASTFeatureExtractor", "sampling_rate": 16000, "num_mel_bins": 128}

    facts = facts_of_huggingface(written(tmp_path / "p.json", config))

    assert facts.sound
    assert facts.sound.sample_rate_hz == 16000
    assert "num_mel_bins 128" in facts.notes[0]


@pytest.mark.parametrize("content", ["[1]", '{"a": 1}', "{", '{"size": {"height": "x"}, "do_resize": true}'])
def test_another_json_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(content)

    with pytest.raises(BadModel, match="cannot read preprocessor_config"):
        facts_of_huggingface(path)


IR = """<net><layers/><rt_info><Runtime_version value="2024"/><model_info>
<iou_threshold value="0.7" /><labels value="person traffic_light" /><model_type value="yolo_v8" />
<pad_value value="114" /><resize_type value="fit_to_window_letterbox" /><reverse_input_channels value="True" />
<scale_values value="255" /></model_info></rt_info></net>"""


def test_openvinos_model_info_says_how_pictures_are_prepared(tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_text(IR)

    facts = facts_of_model_info(model_info_of_xml(tmp_path / "m.xml"))

    assert facts
    assert facts.picture == PictureFacts(
        color="rgb", mode="fit_pad", filter="bilinear", antialias=False, pad_value=114.0, pad_anchor="center",
        scale=1.0, mean=(0.0,), std=(255.0,),
    )  # fmt: skip
    assert facts.labels == ("person", "traffic light")
    assert "iou_threshold 0.7" in facts.notes[0]


def test_openvinos_pictures_are_bgr_unless_reversed() -> None:
    info = {"model_type": "Classification", "resize_type": "standard", "mean_values": "123.675 116.28 103.53",
            "scale_values": "58.395 57.12 57.375", "confidence_threshold": "0.5"}  # fmt: skip

    facts = facts_of_model_info(info)

    assert facts and facts.picture and facts.answer  # noqa: PT018
    assert (facts.picture.color, facts.picture.mode) == ("bgr", "stretch")
    assert facts.picture.mean == (123.675, 116.28, 103.53)
    assert facts.answer.min_score == 0.5


def test_an_xml_without_model_info_and_a_number_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_text("<net/>")

    with pytest.raises(BadModel, match="it has no model_info"):
        model_info_of_xml(tmp_path / "m.xml")
    with pytest.raises(BadModel, match="correct that entry"):
        facts_of_model_info({"mean_values": "one two"})


def test_properties_of_an_onnx_file_are_found() -> None:
    model = conv_classifier()
    for key, value in {"model_info resize_type": "crop", "model_info labels": "a b"}.items():
        model.metadata_props.add(key=key, value=value)

    (facts,) = find_facts(describe(model), None)

    assert facts.source == "OpenVINO model_info"
    assert facts.labels == ("a", "b")


def metadata(mean: float, std: float) -> bytes:
    """A flatbuffer as tflite-support writes it: an image input with normalisation, an output with labels."""
    builder = flatbuffers.Builder()

    def table(*slots) -> int:
        builder.StartObject(8)
        for number, (kind, value) in enumerate(slots):
            if kind is not None:
                getattr(builder, f"Prepend{kind}Slot")(number, value, 0)
        return builder.EndObject()

    def vector(offsets) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    skip = (None, 0)
    numbers = [builder.CreateNumpyVector(np.asarray([value], np.float32)) for value in (mean, std)]
    scaling = table(("UOffsetTRelative", numbers[0]), ("UOffsetTRelative", numbers[1]))
    unit = vector([table(("Uint8", 1), ("UOffsetTRelative", scaling))])
    content = table(("Uint8", 2), ("UOffsetTRelative", table(("Int8", 1))))
    image = table(skip, skip, skip, ("UOffsetTRelative", content), ("UOffsetTRelative", unit))
    name = builder.CreateString("labels.txt")
    files = vector([table(("UOffsetTRelative", name), skip, ("Int8", 2))])
    classes = table(skip, skip, skip, skip, skip, skip, ("UOffsetTRelative", files))
    ports = [vector([image]), vector([classes])]
    graph = table(skip, skip, ("UOffsetTRelative", ports[0]), ("UOffsetTRelative", ports[1]))
    graphs, licence = vector([graph]), builder.CreateString("Apache\nversion = 'evil'")
    root = table(skip, skip, skip, ("UOffsetTRelative", graphs), skip, ("UOffsetTRelative", licence))
    builder.Finish(root, file_identifier=b"M001")
    return bytes(builder.Output())


def with_metadata(path: Path, entry: bytes) -> Path:
    """A small quantised model with a metadata entry, and a zip of labels behind it."""
    from ai_edge_litert import schema_py_generated as schema

    from tests.fakes.litert_models import int8_four_pixel_tflite

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(int8_four_pixel_tflite(shape=(1, 2, 2, 1)), 0))
    buffer, note = schema.BufferT(), schema.MetadataT()
    buffer.data = list(entry)
    model.buffers.append(buffer)
    note.name, note.buffer = "TFLITE_METADATA", len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), note]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("labels.txt", "zero\none\ntwo\nthree\n")
    path.write_bytes(bytes(builder.Output()) + archive.getvalue())
    return path


def test_a_tflite_file_says_its_colour_normalisation_and_labels(tmp_path: Path) -> None:
    imported = import_tflite(with_metadata(tmp_path / "m.tflite", metadata(0.0, 255.0)))

    (facts,) = find_facts(imported, None)

    assert facts.picture == PictureFacts(color="rgb", scale=1.0, mean=(0.0,), std=(255.0,))
    assert facts.labels == ("zero", "one", "two", "three")
    assert contradictions([facts], imported.inputs) == []


def test_metadata_that_contradict_the_inputs_quantisation_are_said_in_the_recipe(tmp_path: Path) -> None:
    imported = import_tflite(with_metadata(tmp_path / "m.tflite", metadata(127.5, 127.5)))
    known = find_facts(imported, None)

    text = starter_text("m.tflite", imported, known)

    assert "# NOTE: TFLite metadata normalises with mean 127.5 and std 127.5" in text
    assert "normalize = { scale = 1.0, mean = [127.5], std = [127.5] }" in text
    recipe = parse_recipe(text.encode(), ".toml")
    assert recipe.version == "1.0.0"


def test_damaged_metadata_are_refused(tmp_path: Path) -> None:
    entry = bytearray(metadata(0.0, 255.0))
    entry[0:4] = b"\xff\xff\xff\x7f"

    with pytest.raises(BadModel, match="its metadata is damaged"):
        find_facts(import_tflite(with_metadata(tmp_path / "m.tflite", bytes(entry))), None)


@given(st.binary(max_size=64), st.integers(0, 300))
def test_no_damage_of_a_flatbuffer_ends_in_anything_but_a_value_error(noise: bytes, position: int) -> None:
    whole = metadata(1.0, 2.0)

    try:
        root = Table.root(whole[:position] + noise + whole[position + len(noise) :])
        for graph in root.tables(3):
            for tensor in graph.tables(2):
                tensor.text(0)
                tensor.tables(4)
    except ValueError:
        return


def test_the_named_file_comes_first_and_a_contradiction_is_said(tmp_path: Path) -> None:
    model = conv_classifier()
    for key, value in {**YOLO, "task": "classify"}.items():
        model.metadata_props.add(key=key, value=value)
    config = written(tmp_path / "preprocessor_config.json", {"do_resize": True, "size": 224, "resample": 3})
    imported = describe(model)

    known = find_facts(imported, config)

    assert [facts.source for facts in known] == ["preprocessor_config.json", "Ultralytics properties"]
    assert any("says filter bicubic, Ultralytics properties says bilinear" in note
               for note in contradictions(known, imported.inputs))  # fmt: skip
    assert merge(known).labels == ("person", "dog's nose")
    assert merge(known).picture == known[0].picture


def test_a_recipe_of_a_yolo_file_reads_as_a_recipe_and_says_where_it_was_heard() -> None:
    imported = describe(conv_classifier())
    facts = yolo((1, 6, 8400), license="AGPL-3.0\nname = 'evil'")

    text = starter_text("yolo.onnx", imported, [facts])
    recipe = parse_recipe(text.encode(), ".toml")

    assert "# from Ultralytics properties" in text
    assert recipe.task == "object_detection"
    assert recipe.outputs["objects"].steps
    assert [step["op"] for step in recipe.outputs["objects"].steps] == ["detect", "nms"]
    assert recipe.inputs["image"].resize
    assert recipe.inputs["image"].resize.pad_anchor == "center"


def test_half_a_step_of_difference_is_rounded_away() -> None:
    port = Port("x", "float32", (1, 8, 8, 3), Stored("int8", 1 / 255, -128))

    assert contradictions([Facts("s", PictureFacts(scale=1 / 255, mean=(0.0,), std=(1.0,)))], [port]) == []
    assert contradictions([Facts("s", PictureFacts(scale=1.0, mean=(0.0,), std=(1.0,)))], [port]) != []


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    ("name", "labels", "kind"),
    [("ssd_mobilenet_v1_coco_quant", 90, "detections"), ("mobilenet_v1_0.25_224_quant", 1001, "classes")],
)
def test_real_files_say_what_their_makers_wrote(shared: Path, name: str, labels: int, kind: str) -> None:
    imported = import_tflite(shared / f"models/tflite/{name}.tflite")

    (facts,) = find_facts(imported, None)

    assert facts.picture == PictureFacts(color="rgb", scale=1.0, mean=(127.5,), std=(127.5,))
    assert len(facts.labels) == labels
    assert facts.answer
    assert facts.answer.kind == kind
    assert "up to 1.0 of 255 apart" in contradictions([facts], imported.inputs)[0]
    assert parse_recipe(starter_text("m.tflite", imported, [facts]).encode(), ".toml").outputs


@pytest.mark.parametrize(
    "size", ["-" * 200_000 + "1", "(" * 200_000, "[True, 0]", "{1, 2}", "[0, 640]", "{[]: 1}", "[1, 2, 3]"]
)
def test_a_size_that_is_none_is_left_out(size: str) -> None:
    facts = yolo((1, 6, 8400), imgsz=size)

    assert facts.picture
    assert facts.picture.size is None


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"size": "\xff"}'])
def test_a_configuration_that_no_reader_gets_through_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "preprocessor_config.json").write_bytes(content)

    with pytest.raises(BadModel, match=r"cannot read preprocessor_config\.json"):
        facts_of_huggingface(tmp_path / "preprocessor_config.json")


def test_sections_that_never_end_are_looked_at_once(tmp_path: Path) -> None:
    # Looked for again from each beginning, this would take hours.
    (tmp_path / "m.xml").write_text("<model_info>" * 2_000_000)

    with pytest.raises(BadModel, match="it has no model_info"):
        model_info_of_xml(tmp_path / "m.xml")


def test_damage_behind_the_first_look_at_metadata_is_refused_too(tmp_path: Path) -> None:
    whole = metadata(0.0, 255.0)

    # Whatever four bytes are an offset or a count point far outside.
    for position in range(8, len(whole) - 4, 4):
        entry = whole[:position] + b"\xff\xff\xff\x7f" + whole[position + 4 :]
        with contextlib.suppress(BadModel):
            assert find_facts(import_tflite(with_metadata(tmp_path / "m.tflite", entry)), None)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_archive_behind_a_model_has_labels_or_none(position: int, byte: int) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written_:
        written_.writestr("labels.txt", "\n".join(str(number) * 7 for number in range(300)))
    content = bytearray(archive.getvalue())
    content[position % len(content)] = byte

    assert isinstance(_labels(bytes(content), ["labels.txt"]), tuple)


@pytest.mark.parametrize(("mean", "std"), [((), ()), ((0.0,), (0.0,))])
def test_a_normalisation_of_nothing_or_by_nothing_breaks_no_comparison(mean, std) -> None:
    port = Port("x", "float32", (1, 8, 8, 3), Stored("int8", 1 / 255, -128))

    assert isinstance(contradictions([Facts("s", PictureFacts(mean=mean, std=std))], [port]), list)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_numbers_without_bounds_are_written_as_toml_writes_them(number: float) -> None:
    step = {
        "op": "detect",
        "min_score": number,
        "names": ['say "hi"', "it's", "del\x7f\x9b\u202e\x1b"],
        "box": [number, 1],
    }
    facts = Facts("s\x7f", answer=AnswerFacts("detections", min_score=number, steps=(step,)))

    text = starter_text("del\x7f.onnx", describe(conv_classifier()), [facts])

    (read,) = tomllib.loads(text)["outputs"]["objects"]["steps"]
    assert read["names"] == step["names"]
    assert all(line.isprintable() for line in text.split("\n"))
    assert read["min_score"] == pytest.approx(number, nan_ok=True)


def test_a_property_that_is_no_text_is_no_metadata() -> None:
    model = conv_classifier()
    model.metadata_props.add(key="keykey", value="v")
    damaged = type(model).FromString(model.SerializeToString().replace(b"keykey", b"key\xff\xfe\xfd"))

    assert find_facts(describe(damaged), None) == ()


def test_a_tensor_whose_name_is_no_text_is_named_escaped() -> None:
    model = conv_classifier()
    damaged = type(model).FromString(model.SerializeToString().replace(b"logits", b"log\xff\xfe\xfd"))

    with pytest.raises(BadModel, match=r"its name is no UTF-8 text"):
        describe(damaged)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_label_file_that_unfolds_into_more_than_it_says_takes_no_memory(compression: int) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", compression) as packed:
        packed.writestr("labels.txt", bytes(64 * 1024 * 1024))
    content = bytearray(archive.getvalue())
    # The directory's word for the unpacked size, four bytes at 24 of its entry (APPNOTE 4.3.12).
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 100)

    tracemalloc.start()
    try:
        labels = _labels(bytes(content), ["labels.txt"])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert labels == ()
    assert peak_bytes < 16 * 1024 * 1024
