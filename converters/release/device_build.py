"""What a device must build before it can run a variant: TensorRT's engine, from the file that the release carries.

An engine is machine code for one GPU and one version, so it never travels; the file, the plan and the commands do.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from converters.errors import CompileFailed
from converters.planning.methods import Method
from converters.release.draft import Draft
from edge_runtime.contract.ids import LayerName, VariantId
from edge_runtime.contract.release import BuildPlan, Scalar, VariantManifest

MIB: Final = 1024**2
WORKSPACE_BYTES: Final = 256 * MIB
TIMEOUT_S: Final = 900.0
_BUILDER_FLOOR_BYTES: Final = 512 * MIB
"""Of TensorRT, its kernels and a CUDA context, before the model; an estimate to be corrected by a device's evidence."""

CACHE_KEY: Final = ("build_input", "plan", "tensorrt_build", "compute_capability", "soc", "driver")
SHAREABLE: Final = "only when signed by a delegated builder key"

Shapes = Mapping[str, Mapping[str, list[int]]]
"""`min`, `opt` and `max` sizes by input of the file."""


def as_device_build(manifest: VariantManifest, method: Method, draft: Draft, fallback: VariantId) -> VariantManifest:
    """The manifest of a variant that a device builds an engine for.

    Args:
        manifest: of the file, without a build plan.
        method: how the file was made; `typing` and precision decide the flags.
        draft: sizes of its inputs.
        fallback: the variant that needs no GPU.

    Raises:
        CompileFailed: an axis beside the batch has no bounds.
    """
    shapes = {tensor: _bounds(draft, name, tensor) for name, tensor in draft.inputs.items()}
    files = sum(entry.size for entry in manifest.files)
    plan = BuildPlan(
        where="device",
        timeout_s=TIMEOUT_S,
        peak_bytes=_BUILDER_FLOOR_BYTES + WORKSPACE_BYTES + 4 * files,
        flags=_flags(method),
        workspace_bytes=WORKSPACE_BYTES,
        cache_key=list(CACHE_KEY),
        profiles=[{name: dict(bounds) for name, bounds in shapes.items()}],
        timing_cache="keep",
        shareable=SHAREABLE,
    )
    target = msgspec.structs.replace(
        manifest.target,
        provider=["native", "onnxruntime"],
        accelerator="nvidia-gpu",
        precision="int8+float16" if method.is_quantised else "float16",
    )
    engine = msgspec.structs.replace(manifest.engine, options=provider_options(plan))
    # Named after the variant: whoever builds by hand lays the files of several into one folder.
    entries = [msgspec.structs.replace(entry, layer=LayerName(f"{manifest.id}.onnx")) for entry in manifest.files]
    return msgspec.structs.replace(manifest, target=target, engine=engine, files=entries, build=plan, fallback=fallback)


def provider_options(plan: BuildPlan) -> dict[str, Scalar]:
    """Options of ONNX Runtime's TensorRT provider for a plan; where engines are cached is the device's own business.

    Source: ONNX Runtime documentation, TensorRT execution provider, configurations.
    """
    options: dict[str, Scalar] = {
        "trt_fp16_enable": "fp16" in plan.flags,
        "trt_int8_enable": "int8" in plan.flags,
        "trt_max_workspace_size": plan.workspace_bytes,
        "trt_engine_cache_enable": True,
        "trt_timing_cache_enable": plan.timing_cache == "keep",
    }
    for bound, key in (("min", "trt_profile_min_shapes"), ("opt", "trt_profile_opt_shapes"),
                       ("max", "trt_profile_max_shapes")):  # fmt: skip
        options[key] = _shapes(plan, bound)
    return options


def trtexec_command(manifest: VariantManifest) -> str:
    """The command that builds a variant's engine by hand. Source: TensorRT documentation, trtexec."""
    plan = manifest.build
    if plan is None:
        raise ValueError(f"variant {manifest.id} needs no build on the device")
    is_strong = manifest.engine.format is not None and manifest.engine.format.typing == "strong"
    words = [
        "trtexec",
        f"--onnx={manifest.files[0].layer}",
        *(f"--{flag}" for flag in plan.flags),
        *(["--stronglyTyped"] if is_strong else []),
        *(f"--{bound}Shapes={_shapes(plan, bound)}" for bound in ("min", "opt", "max") if _is_free(plan)),
        f"--memPoolSize=workspace:{(plan.workspace_bytes or WORKSPACE_BYTES) // MIB}M",
        "--timingCacheFile=timing.cache",
        f"--saveEngine={manifest.id}.plan",
    ]
    # Names of inputs come from the model; what is copied into a shell must not run them.
    return shlex.join(words)


def _flags(method: Method) -> list[str]:
    """What a weakly typed build is allowed; a strongly typed file says it itself."""
    if method.typing == "strong":
        return []
    return ["fp16", "int8"] if method.is_quantised else ["fp16"]


def _bounds(draft: Draft, name: str, tensor: str) -> dict[str, list[int]]:
    bounds: dict[str, list[int]] = {"min": [], "opt": [], "max": []}
    axes = {**draft.manifest.signature.axes, "N": draft.batch}
    for size in draft.tensor(name).shape:
        axis = axes.get(size) if isinstance(size, str) else None
        if isinstance(size, str) and axis is None:
            remedy = f"fix it with --shape {tensor}=SIZES"
            raise CompileFailed("plan the engine", f"axis {size} of input {tensor} has no bounds", remedy)
        low, high = (axis.min, axis.max) if axis else (int(size), int(size))
        bounds["min"].append(low)
        # One sample at a time is what an edge device asks most.
        bounds["opt"].append(low)
        bounds["max"].append(high)
    return bounds


def _shapes(plan: BuildPlan, bound: str) -> str:
    profile: Mapping[str, Any] = plan.profiles[0] if plan.profiles else {}
    return ",".join(f"{name}:{'x'.join(map(str, sizes[bound]))}" for name, sizes in profile.items())


def _is_free(plan: BuildPlan) -> bool:
    """Whether any size is left to choose: trtexec refuses shapes of a model that has none."""
    return any(sizes["min"] != sizes["max"] for profile in plan.profiles for sizes in profile.values())
