"""One compilation as data: what goes into the worker process, and what comes back."""

from __future__ import annotations

import msgspec

from converters.planning.methods import Method, RangeMethod


class RangesJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="ranges"):
    """Ranges of all activations over a calibration set, for every candidate that takes them the same way."""

    model: str
    calibration: str
    ranges: RangeMethod
    out: str

    @property
    def label(self) -> str:
        """For messages."""
        return f"take {self.ranges} ranges"


class SensitivityJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="sensitivity"):
    """Which layers a quantised file loses in."""

    prepared: str
    """The float model as a `RangesJob` left it."""
    quantised: str
    """What a compiler made of it."""
    calibration: str
    out: str
    count: int = 12
    """Samples that are asked."""
    undo: bool = False
    """Whether each layer is also computed in float, to see if mixed precision would help."""

    @property
    def label(self) -> str:
        """For messages."""
        return "look for the layers that lose accuracy"


class CompileJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="compile"):
    """Work for one fresh process; paths are absolute."""

    method: Method
    model: str
    """The float model, canonical tensors in and out."""
    out: str
    """Folder for the result."""
    calibration: str | None = None
    """Folder of `<n>.npz`, one per sample, arrays by the model's input names."""
    prepared: str | None = None
    """The float model as a `RangesJob` left it; None: the compiler prepares it itself."""
    ranges: str | None = None
    """The ranges that job found."""
    mean: list[float] = []
    """Normalisation that OpenVINO's own preprocessing puts in front (with `scale`, `std`); empty: none."""
    std: list[float] = []
    scale: float = 1.0
    image_input: str | None = None
    """Name of the input that takes uint8 NHWC pictures in the result; None: inputs stay as they are."""
    image_layout: str | None = None
    input_name: str = "image"
    channels_last: list[str] = []
    """Inputs of layout NCHW that become NHWC in the result."""
    full_ranges: dict[str, tuple[float, float]] = {}
    """Least and greatest value that an input can take, by its name in `model`, where that is known without examples."""
    sample_names: dict[str, str] = {}
    """What the samples call an input, by its name in `model`, where that differs."""

    @property
    def label(self) -> str:
        """For messages."""
        return f"compile {self.method.name} for {self.method.engine}"


Job = CompileJob | RangesJob | SensitivityJob


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """What a compiler made; how is in the job."""

    files: dict[str, str]
    """Path by role (`model`, `weights`; of a `RangesJob` `prepared`, `ranges`; of a `SensitivityJob` `sensitivity`)."""
    tool: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a compiler made nothing."""

    because: str
    may_pass: bool = False
    """Whether the cause lies outside the model (memory, disk, a missing tool): then the next try may succeed."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of the two."""

    compiled: Compiled | None = None
    failure: Failure | None = None
