"""What a model hands from call to call, guessed from the names of its ports: a beginning for a recipe, never more."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from converters.model.source import Imported, Port
from converters.preflight.ports import state_pairs
from converters.starter.guess import Guess, shape_text
from converters.starter.toml_text import COLUMN, commented, quoted, value_text
from edge_runtime.contract.steps import RawStep

_RATES: Final = frozenset({"sr", "sample_rate", "sampling_rate", "rate"})
"""Inputs that are told the samples per second."""
_RATE_HZ: Final = 16000
_FRAME, _CONTEXT = 512, 64
"""How Silero's voice activity detector is fed at 16 kHz, which is what most models of such ports are."""
_HYSTERESIS: Final[RawStep] = {
    "op": "hysteresis", "on": 0.5, "off": 0.35, "min_on_ms": 250, "min_off_ms": 100, "pad_ms": 30,
}  # fmt: skip
_SPOKEN: Final = {
    "on": "CHANGE: a score from which a segment begins",
    "off": "CHANGE: a score below which it ends",
    "min_on_ms": "CHANGE: shorter segments are none",
    "min_off_ms": "CHANGE: shorter pauses are none; at least twice pad_ms",
    "pad_ms": "CHANGE: what a segment gains at both ends",
}


@dataclass(frozen=True, slots=True)
class Memory:
    """Ports of a model that no application feeds or reads."""

    states: tuple[tuple[Port, Port], ...]
    """Input and output of each state."""
    rate: Port | None
    """Input that is told the samples per second."""

    @property
    def is_sound(self) -> bool:
        """Whether the model probably hears sound, piece after piece."""
        return bool(self.states) and self.rate is not None

    def without(self, imported: Imported) -> Imported:
        """The model as an application sees it; as it is where nothing would be left."""
        hidden = {port.name for pair in self.states for port in pair} | ({self.rate.name} if self.rate else set())
        inputs = tuple(port for port in imported.inputs if port.name not in hidden)
        outputs = tuple(port for port in imported.outputs if port.name not in hidden)
        return replace(imported, inputs=inputs, outputs=outputs) if inputs and outputs else imported

    def heard(self, imported: Imported) -> Guess | None:
        """What a model that hears sound probably answers; None for every other model."""
        if not self.is_sound:
            return None
        because = "the model remembers and is told a sample rate"
        return Guess("segments", "voice_activity", imported.outputs[0], because, (_HYSTERESIS,))


def find_memory(imported: Imported) -> Memory:
    """The states of an ONNX model and its sample rate, by their names."""
    if imported.format != "onnx":
        return Memory((), None)
    names = state_pairs(imported.model.graph)
    pairs = tuple((imported.input(before), imported.output(after)) for before, after in names)
    rates = [port for port in imported.inputs if port.name.lower() in _RATES and port.shape in {(), (1,)}]
    return Memory(pairs, rates[0] if rates and pairs else None)


def frame_lines(port: Port) -> list[str]:
    """An input that hears sound frame by frame."""
    width = port.shape[-1] if len(port.shape) > 1 else None
    length, context = (_FRAME, _CONTEXT) if width is None else (width, 0)
    fits = "a wrong context runs without an error and hears nothing"
    told = f"CHANGE: samples of a frame, and of the one before that come along; {fits}"
    frame: RawStep = {"op": "frame", "length": length, "hop": length, "context": context, "tail": "pad_zero"}
    return [
        "[inputs.audio]".ljust(COLUMN) + f"# {port.dtype} {shape_text(port)}",
        f"tensor = {quoted(port.name)}",
        commented('kind = "audio"', "CHANGE: guessed, because the model remembers and is told a sample rate"),
        commented(f"sample_rate_hz = {_RATE_HZ}", "CHANGE: as in training"),
        "channels = 1",
        commented('dtype = "float32"', "samples in -1..1; int16: as sound files hold them"),
        "",
        "[[inputs.audio.steps]]",
        'op = "amplitude"',
        commented('mode = "none"', 'CHANGE to "peak" or "rms" only for a model that hears whole sounds'),
        "",
        "[[inputs.audio.steps]]",
        f"# {told}",
        *(f"{key} = {value_text(value)}" for key, value in frame.items()),
        "",
    ]


def memory_lines(memory: Memory) -> list[str]:
    """Constants, states and the rules of sessions; nothing for a model that keeps nothing."""
    lines: list[str] = []
    if memory.rate is not None:
        rate = commented(f"{memory.rate.name} = {_RATE_HZ}", "CHANGE: guessed from its name; always the same")
        lines += ["[constants]", rate, ""]
    for before, after in memory.states:
        lines += [
            f"[states.{_bare(before.name)}]".ljust(COLUMN) + f"# {before.dtype} {shape_text(before)}",
            commented(f"in = {quoted(before.name)}", "CHANGE: guessed from its name; begins with zeros"),
            f"out = {quoted(after.name)}",
            *_shape_lines(before, after),
            "",
        ]
    if memory.states:
        lines += [
            "[stream]",
            commented("idle_ms = 60000", "CHANGE: a session that nobody uses for so long is forgotten"),
            commented("max_sessions = 64", "CHANGE: streams at a time"),
            *([commented("gap_ms = 1000", "CHANGE: after such a hole the model begins anew")] if memory.rate else []),
            "",
        ]
    return lines


def heard_lines(guess: Guess) -> list[str]:
    """Segments, and the score of each frame beside them."""
    tensor = f"tensor = {quoted(guess.port.name)}"
    (step,) = guess.steps
    return [
        "[outputs.segments]".ljust(COLUMN) + f"# {guess.port.dtype} {shape_text(guess.port)}",
        tensor,
        commented('kind = "segments"', f"CHANGE: guessed, because {guess.because}"),
        "",
        "[[outputs.segments.steps]]",
        *(commented(f"{key} = {value_text(value)}", _SPOKEN.get(key, "")) for key, value in step.items()),
        "",
        "[outputs.score]",
        tensor,
        'kind = "score"               # for each frame',
        "",
    ]


def _bare(name: str) -> str:
    """A name as TOML takes it without quotes."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:60]


def _shape_lines(before: Port, after: Port) -> list[str]:
    told = after.shape if len(after.shape) == len(before.shape) else (None,) * len(before.shape)
    sizes = [one if one is not None else other for one, other in zip(before.shape, told, strict=True)]
    if sizes.count(None) < 2:
        return []
    written = ["N" if axis == sizes.index(None) else size or "SIZE" for axis, size in enumerate(sizes)]
    return [commented(f"shape = {value_text(written)}", "CHANGE: of one session, N the batch axis")]
