"""A small model that hears sound frame by frame and remembers, releases around it, and one around Silero's file."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.contract.codec import encode
from edge_runtime.contract.digest import Digest, digest_of
from edge_runtime.contract.ids import LayerName, ModelName, VariantId, Version
from edge_runtime.contract.layout import RELEASE_CONFIG, VARIANT_CONFIG, LayoutWriter, variant_annotations
from edge_runtime.contract.release import (
    FileEntry,
    GoldenCheck,
    GoldenSpec,
    Licence,
    ReleaseManifest,
    Source,
    StateSpec,
    StreamSpec,
    TensorBinding,
    TensorMap,
    VariantManifest,
)
from edge_runtime.contract.steps import RawStep
from edge_runtime.contract.target import Target
from edge_runtime.contract.tensor import InputSpec, OutputSpec, Signature, TensorSpec

RATE_HZ = 1000
CONTEXT = 4
FRAME = 8
MEMORY = 3
"""Numbers that the small model remembers."""


def remembering_model(*, width: int = CONTEXT + FRAME, begins_with: float = 0.0, remembers: float = 1.0) -> bytes:
    """`input` float32 [N, 12], `state` float32 [1, N, 3], `sr` int64 → `output` float32 [N, 1], `stateN` [1, N, 3].

    state' = tanh(input · A + state · B) · sr / 1000; output = sigmoid(state' · C).

    Args:
        width: samples that it takes in one step.
        begins_with: added to a state of zeros, as if a session began with it.
        remembers: how much of the state it makes use of.
    """
    rng = np.random.default_rng(11)
    weights = {
        "A": rng.standard_normal((width, MEMORY)).astype(np.float32),
        "B": rng.standard_normal((MEMORY, MEMORY)).astype(np.float32) * np.float32(remembers),
        "C": rng.standard_normal((MEMORY, 1)).astype(np.float32),
        "rate": np.float32(RATE_HZ),
        "lead": np.asarray([0], np.int64),
        "zero": np.float32(0),
        "beginning": np.float32(begins_with),
    }
    nodes = [
        helper.make_node("Equal", ["state", "zero"], ["is_beginning"]),
        helper.make_node("Where", ["is_beginning", "beginning", "state"], ["begun"]),
        helper.make_node("Squeeze", ["begun", "lead"], ["before"]),
        helper.make_node("MatMul", ["input", "A"], ["heard"]),
        helper.make_node("MatMul", ["before", "B"], ["remembered"]),
        helper.make_node("Add", ["heard", "remembered"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["bounded"]),
        helper.make_node("Cast", ["sr"], ["real_rate"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["real_rate", "rate"], ["scale"]),
        helper.make_node("Mul", ["bounded", "scale"], ["after"]),
        helper.make_node("MatMul", ["after", "C"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["output"]),
        helper.make_node("Unsqueeze", ["after", "lead"], ["stateN"]),
    ]
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", width]),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, "N", MEMORY]),
        helper.make_tensor_value_info("sr", TensorProto.INT64, []),
    ]
    outputs = [
        helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 1]),
        helper.make_tensor_value_info("stateN", TensorProto.FLOAT, [1, "N", MEMORY]),
    ]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def row_model() -> bytes:
    """`x` float32 [N, 4], `h` float32 [N, 3] → `y` float32 [N, 2], `h_out` float32 [N, 3]; h' = tanh(x · A + h · B)."""
    rng = np.random.default_rng(7)
    shapes = {"A": (4, MEMORY), "B": (MEMORY, MEMORY), "C": (MEMORY, 2)}
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["seen"]),
        helper.make_node("MatMul", ["h", "B"], ["remembered"]),
        helper.make_node("Add", ["seen", "remembered"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["h_out"]),
        helper.make_node("MatMul", ["h_out", "C"], ["y"]),
    ]
    ports = {"x": 4, "h": MEMORY, "y": 2, "h_out": MEMORY}
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in ports.items()}
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    graph = helper.make_graph(nodes, "g", [infos["x"], infos["h"]], [infos["y"], infos["h_out"]], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


@dataclass(frozen=True)
class Hearing:
    """A stateful release to write; the small model's, where nothing else is said."""

    content: bytes = field(default_factory=remembering_model)
    rate_hz: int = RATE_HZ
    context: int = CONTEXT
    frame: int = FRAME
    tail: str = "pad_zero"
    state: tuple[int | str, ...] = (1, "N", MEMORY)
    stream: StreamSpec | None = field(default_factory=lambda: StreamSpec(unit="frame", session="required"))
    hysteresis: RawStep = field(
        default_factory=lambda: {
            "op": "hysteresis", "from": "output", "on": 0.6, "off": 0.4, "min_on_ms": 16, "min_off_ms": 16, "pad_ms": 4,
        }
    )  # fmt: skip
    init: str = "zeros"
    version: str = "1.0.0"

    def release(self, golden: GoldenSpec | None = None) -> ReleaseManifest:
        """Its release manifest."""
        frame: RawStep = {
            "id": "frame", "op": "frame", "length": self.frame, "hop": self.frame, "context": self.context,
            "tail": self.tail,
        }  # fmt: skip
        sound = InputSpec(
            name="audio", kind="audio", dtype="float32", shape=["T"], sample_rate_hz=self.rate_hz, channels=1,
            accept=["wav", "s16le", "tensor"],
        )  # fmt: skip
        answers = [OutputSpec(name="segments", kind="segments", unit="s"), OutputSpec(name="speech", kind="score")]
        return ReleaseManifest(
            kind="model",
            name=ModelName("vad"),
            version=Version(self.version),
            task="voice_activity",
            requires=["states", "stream"],
            licence=Licence(spdx="MIT"),
            source=Source(digest=digest_of(b""), format="onnx"),
            signature=Signature(inputs=[sound], outputs=answers),
            tensors={
                "input": TensorSpec(dtype="float32", shape=["N", self.context + self.frame]),
                "sr": TensorSpec(dtype="int64", shape=[], constant=self.rate_hz),
                "output": TensorSpec(dtype="float32", shape=["N", 1]),
            },
            preprocess={"input": [{"id": "pcm", "op": "amplitude", "from": "audio", "mode": "none"}, frame]},
            postprocess={"segments": [self.hysteresis], "speech": [{"op": "score", "from": "output"}]},
            states=[
                StateSpec(name="rnn", in_="state", out="stateN", dtype="float32", shape=[*self.state], init=self.init),
                StateSpec(name="context", of_step="frame", init="zeros"),
            ],
            stream=self.stream,
            variants=[VariantId("ort-fp32")],
            golden=golden,
        )

    def variant(self) -> VariantManifest:
        """Its only variant's manifest."""
        digest, size = digest_of(self.content), len(self.content)
        return VariantManifest(
            id=VariantId("ort-fp32"),
            requires=[],
            target=Target(engine="onnxruntime", precision="float32", provider=["cpu"]),
            files=[FileEntry(role="model", layer=LayerName("model.onnx"), digest=digest, size=size)],
            io=TensorMap(
                inputs={
                    "input": TensorBinding(tensor="input", dtype="float32"),
                    "state": TensorBinding(tensor="state", dtype="float32"),
                    "sr": TensorBinding(tensor="sr", dtype="int64"),
                },
                outputs={
                    "output": TensorBinding(tensor="output", dtype="float32"),
                    "stateN": TensorBinding(tensor="stateN", dtype="float32"),
                },
            ),
        )

    def but(self, **changes: Any) -> Hearing:
        """The same with other values."""
        return replace(self, **changes)

    def streaming(self, **changes: Any) -> Hearing:
        """The same with other rules for its sessions."""
        rules = self.stream or StreamSpec(unit="frame", session="required")
        return replace(self, stream=msgspec.structs.replace(rules, **changes))

    def write(self, folder: Path, *, golden: bytes | None = None, checks: list[GoldenCheck] | None = None) -> Digest:
        """Write the release as an OCI layout; its digest. `golden` holds one sequence."""
        spec, files = None, {}
        if golden is not None:
            spec = GoldenSpec(
                layer="golden.tar", count=1, contains_personal_data=False, checks=checks or [], stored="sequence"
            )
            files["golden.tar"] = golden
        writer = LayoutWriter(folder)
        release = writer.add_manifest(encode(self.release(spec)), RELEASE_CONFIG, files, {})
        variant = self.variant()
        layers = {"model.onnx": self.content}
        entry = writer.add_manifest(encode(variant), VARIANT_CONFIG, layers, variant_annotations(variant))
        return writer.finish(release, [entry], Version(self.version))


def silero(shared: Path) -> Hearing:
    """Silero's voice activity detector, as its authors feed it: 512 samples at 16 kHz after 64 that were heard."""
    return Hearing(
        content=(shared / "models/onnx/silero_vad.onnx").read_bytes(),
        rate_hz=16000,
        context=64,
        frame=512,
        state=(2, "N", 128),
        hysteresis={
            "op": "hysteresis", "from": "output", "on": 0.5, "off": 0.35, "min_on_ms": 250, "min_off_ms": 100,
            "pad_ms": 30,
        },
    )  # fmt: skip


def recording(sound: np.ndarray, rate_hz: int = RATE_HZ) -> bytes:
    """A WAVE file of a float32 [T] sound in −1..1."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return content.getvalue()


def noise(seconds: float, *, seed: int = 5, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Float32 [T]: noise that comes and goes, so that segments begin and end."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate_hz)
    swell = np.sin(np.arange(count) / rate_hz * 2 * np.pi * 3)
    return (rng.standard_normal(count) * swell).astype(np.float32)
