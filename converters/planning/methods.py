"""How a variant is made: engine, precision, and every setting of the quantiser; the named ones, and in which order.

A method is data: it travels to the worker that compiles it, names the variant, and stands in its manifest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal

import msgspec

from converters.planning.recipe import EngineName, Precision, Prefer
from edge_runtime.contract.release import Scalar

Scheme = Literal["none", "dynamic", "static", "source"]
"""`source`: the model came quantised, and its numbers are kept."""
NumberType = Literal["int8", "uint8", "int16", "uint16", "float16"]
RangeMethod = Literal["minmax", "entropy", "percentile"]
OverflowFix = Literal["enable", "first_layer_only", "disable"]

_EXACT_ENGINES: Final = frozenset({"litert", "tensorrt"})
"""Their 8-bit kernels sum in 32 bits on every device."""

SHORT: Final[Mapping[EngineName, str]] = {
    "onnxruntime": "ort", "openvino": "openvino", "litert": "litert", "tensorrt": "jetson",
}  # fmt: skip
"""How variant ids abbreviate engines."""


class Method(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One way to make a variant; equal methods on equal inputs give equal bytes."""

    engine: EngineName
    name: str
    """What the variant's id says after the engine; `int8-full`."""
    precision: Precision
    scheme: Scheme = "none"
    weights: NumberType | None = None
    """How they are stored; None: as the source model has them."""
    activations: NumberType | None = None
    symmetric: bool = False
    """Activation ranges are centred on zero."""
    per_channel: bool = False
    dense_per_tensor: bool = False
    """Fully-connected layers keep one scale, all that an Edge TPU takes, however the others are quantised."""
    reduce_range: bool = False
    """Weights keep 7 bits, so that no kernel can saturate."""
    calibration: RangeMethod | None = None
    """How examples become ranges; None: the tool's own way, or none are needed."""
    overflow_fix: OverflowFix | None = None
    """NNCF's name for 7-bit weights: on every layer, the first only, or none."""
    typing: Literal["weak", "strong"] | None = None
    """Of a file for TensorRT: who decides where fp16 is used, its builder or the file."""
    engine_versions: str = ""
    """Of the engine, that take such a file; empty: those of the targets."""
    excluded: tuple[str, ...] = ()
    """Nodes left in float, by name."""
    options: dict[str, Scalar] = {}
    """Engine options without which the file is wrong or slow; they become part of the variant."""

    @property
    def is_quantised(self) -> bool:
        """Whether numbers are stored with fewer than 16 bits."""
        return self.scheme != "none"

    @property
    def is_plain(self) -> bool:
        """Whether it keeps every number of a float model, and computes in float32."""
        return self.precision == "float32" and self.weights is None

    @property
    def is_overflow_safe(self) -> bool:
        """Whether no 16-bit intermediate sum of an 8-bit kernel can overflow, whatever the CPU."""
        exact = str(self.options.get("session.x64quantprecision", "0")) == "1"
        is_wide = self.activations in {"int16", "uint16"}
        is_exact = exact or is_wide or self.engine in _EXACT_ENGINES
        is_safe = is_exact or self.reduce_range or self.overflow_fix == "enable"
        return is_safe or self.scheme not in {"static", "source"}

    @property
    def is_made_here(self) -> bool:
        """Whether a quantiser of ours makes it, from examples or without."""
        return self.scheme in {"static", "dynamic"}


def _ort(name: str, **settings: object) -> Method:
    static = {
        "engine": "onnxruntime", "name": name, "precision": "int8", "scheme": "static", "weights": "int8",
        "activations": "uint8", "per_channel": True, "calibration": "minmax",
    }  # fmt: skip
    return msgspec.convert({**static, **settings}, Method)


def _jetson(typing: Literal["weak", "strong"], **settings: object) -> Method:
    """A file for TensorRT: symmetric int8, because a GPU has no other; or half precision."""
    versions = {"weak": ">=8.5,<11", "strong": ">=10.0"}[typing]
    static = {
        "engine": "tensorrt", "name": typing, "precision": "int8", "scheme": "static", "weights": "int8",
        "activations": "int8", "symmetric": True, "per_channel": True, "typing": typing, "engine_versions": versions,
    }  # fmt: skip
    return msgspec.convert({**static, **settings}, Method)


def _jetson_half(typing: Literal["weak", "strong"]) -> Method:
    plain = {"scheme": "none", "weights": None, "activations": None, "symmetric": False, "per_channel": False}
    return _jetson(typing, name=f"{typing}-float16", precision="float16", **plain)


def _nncf(name: str, **settings: object) -> Method:
    static = {
        "engine": "openvino", "name": name, "precision": "int8", "scheme": "static", "weights": "int8",
        "activations": "uint8", "symmetric": True, "per_channel": True, "overflow_fix": "enable",
    }  # fmt: skip
    return msgspec.convert({**static, **settings}, Method)


_ONNXRUNTIME: Final = (
    Method(engine="onnxruntime", name="float32", precision="float32"),
    Method(engine="onnxruntime", name="float16", precision="float16"),
    _ort("int8", reduce_range=True),
    _ort("int8-percentile", reduce_range=True, calibration="percentile"),
    _ort("int8-entropy", reduce_range=True, calibration="entropy"),
    _ort("int8-tensor", reduce_range=True, per_channel=False),
    _ort("int8-full"),
    _ort("int8-full-tensor", per_channel=False),
    # Exact sums on x86 CPUs without VNNI; slower on every x86, and without effect on ARM.
    _ort("int8-exact", options={"session.x64quantprecision": "1"}),
    _ort("int8-signed", activations="int8"),
    _ort("int8-signed-symmetric", activations="int8", symmetric=True),
    _ort("int8-wide", activations="uint16"),
    Method(engine="onnxruntime", name="int8-dynamic", precision="int8", scheme="dynamic", weights="uint8",
           activations="uint8"),
)  # fmt: skip
_OPENVINO: Final = (
    # Half the size, computed in float32; first, because the full weights are not needed where these answer alike.
    Method(engine="openvino", name="float16-weights", precision="float32", weights="float16"),
    Method(engine="openvino", name="float32", precision="float32"),
    _nncf("int8"),
    _nncf("int8-asymmetric", symmetric=False),
    _nncf("int8-full", overflow_fix="disable"),
)  # fmt: skip

_LITERT: Final = (
    Method(engine="litert", name="float32", precision="float32"),
    # Whole numbers from input to output, which is all that an Edge TPU or a microcontroller can do.
    Method(engine="litert", name="int8", precision="int8", scheme="static", weights="int8", activations="int8",
           per_channel=True, calibration="minmax"),
    Method(engine="litert", name="int8-edgetpu", precision="int8", scheme="static", weights="int8", activations="int8",
           per_channel=True, dense_per_tensor=True, calibration="minmax"),
    # Weights in 8 bits; activations are quantised anew with every call, which needs no examples.
    Method(engine="litert", name="int8-dynamic-range", precision="int8", scheme="dynamic", weights="int8",
           activations="int8", per_channel=True),
)  # fmt: skip

_TENSORRT: Final = (
    _jetson_half("weak"),
    _jetson_half("strong"),
    # Percentiles first: symmetric ranges waste levels on outliers of both signs.
    _jetson("weak", calibration="percentile"),
    _jetson("strong", calibration="percentile"),
    _jetson("weak", name="weak-minmax", calibration="minmax"),
    _jetson("strong", name="strong-minmax", calibration="minmax"),
    _jetson("weak", name="weak-entropy", calibration="entropy"),
    _jetson("strong", name="strong-entropy", calibration="entropy"),
)

METHODS: Final[Mapping[EngineName, tuple[Method, ...]]] = {
    "onnxruntime": _ONNXRUNTIME,
    "openvino": _OPENVINO,
    "litert": _LITERT,
    "tensorrt": _TENSORRT,
}
"""Every method that can be asked for by name; a new engine adds a row here and one to the builders."""

ORDER: Final[Mapping[Prefer, tuple[str, ...]]] = {
    "latency": (
        "float16-weights", "float32", "float16", "int8", "int8-asymmetric", "int8-percentile", "int8-entropy",
        "int8-exact", "int8-edgetpu", "int8-dynamic-range",
    ),
    # Eight bits before seven: where kernels saturate, measurement refuses the first, not belief.
    "accuracy": (
        "float16-weights", "float32", "float16", "int8-full", "int8-exact", "int8", "int8-asymmetric",
        "int8-percentile", "int8-entropy", "int8-wide", "int8-edgetpu", "int8-dynamic-range",
    ),
    "size": (
        "float16-weights", "float32", "float16", "int8-full", "int8-tensor", "int8-exact", "int8", "int8-asymmetric",
        "int8-percentile", "int8-entropy", "int8-edgetpu", "int8-dynamic-range",
    ),
}  # fmt: skip
"""What is tried without being asked for, best hope first."""


def as_it_came(engine: EngineName, *, is_quantised: bool) -> Method:
    """The source model itself on an engine that reads its format."""
    if is_quantised:
        return Method(engine=engine, name="int8", precision="int8", scheme="source")
    return Method(engine=engine, name="float32", precision="float32")


def variant_name(method: Method) -> str:
    """The id of the variant that a method makes."""
    return f"{SHORT[method.engine]}-{method.name}"


def describe_method(method: Method) -> str:
    """How a method quantises, for a person; empty for plain float32."""
    if not method.is_quantised:
        if method.precision == "float32":
            return "" if method.is_plain else f"weights {method.weights}, computed in float32"
        return f"{method.precision} weights and arithmetic"
    if method.scheme == "source":
        return "as the source model is quantised"
    parts = [
        method.scheme,
        f"activations {method.activations}" + (" symmetric" if method.symmetric else ""),
        f"weights {method.weights}" + (" in 7 bits" if is_reduced(method) else ""),
        "per channel" if method.per_channel else "per tensor",
        "fully-connected per tensor" if method.dense_per_tensor else "",
        method.calibration or "",
        *(f"{key}={value}" for key, value in method.options.items()),
        f"{len(method.excluded)} nodes in float" if method.excluded else "",
    ]
    return ", ".join(part for part in parts if part)


def is_reduced(method: Method) -> bool:
    """Whether weights keep 7 bits."""
    return method.reduce_range or method.overflow_fix == "enable"


def is_known(name: str) -> bool:
    """Whether a recipe may ask for this method: `int8` (of every engine) or `ort-int8`."""
    return any(name in {method.name, variant_name(method)} for methods in METHODS.values() for method in methods)


def chosen(engine: EngineName, prefer: Prefer, asked: Collection[str] | None, *, narrow: bool) -> list[Method]:
    """The methods of an engine that a build plans, in the order it tries them.

    Args:
        engine: whose methods.
        prefer: what the engineer prefers.
        asked: names or ids from the recipe; None: the engine's share of `ORDER`.
        narrow: whether some target's 8-bit kernels may saturate; where none does, 7 bits would only lose accuracy.
    """
    # A GPU's files are few and cheap to judge: all are planned, in the order they are written down.
    names = tuple(method.name for method in METHODS[engine]) if engine == "tensorrt" else ORDER[prefer]
    rank = {name: number for number, name in enumerate(names)}
    methods = sorted(METHODS[engine], key=lambda method: rank.get(method.name, len(rank)))
    if asked is not None:
        picked = [method for method in methods if _names_of(method) & set(asked)]
    else:
        picked = [method for method in methods if method.name in rank]
    return picked if narrow else _unreduced(picked)


def _names_of(method: Method) -> set[str]:
    """What a recipe may call a method: of TensorRT's two files, `int8` and `float32` mean the first pair of each."""
    own = {method.name, variant_name(method)}
    if method.typing is None:
        return own
    plain = {method.typing: "int8", f"{method.typing}-float16": "float32"}
    return own | {plain[method.name]} if method.name in plain else own


def _unreduced(methods: Sequence[Method]) -> list[Method]:
    """The same methods with all 8 bits, each distinct one once."""
    kept: list[Method] = []
    for method in methods:
        if "session.x64quantprecision" in method.options:
            continue
        fix: OverflowFix | None = "disable" if method.overflow_fix else None
        full = msgspec.structs.replace(method, reduce_range=False, overflow_fix=fix)
        if not any(msgspec.structs.replace(other, name=full.name) == full for other in kept):
            kept.append(full)
    return kept
