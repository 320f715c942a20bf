"""What a variant may tell ONNX Runtime's execution providers: by name and type, checked before the vendor sees it.

Options that name files, load libraries, take pointers or only help debugging are left out: where things are kept is the
device's own business. Sources: ONNX Runtime documentation, one page for each execution provider.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from edge_runtime.contract.errors import UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.release import Scalar, VariantManifest
from edge_runtime.inference.libraries.onnxruntime_session import DUMPS_CONTEXT, FRESH_CONTEXT


class _Rule(NamedTuple):
    says: str
    holds: Callable[[Scalar], bool]


def _whole(least: int, most: int = 2**63 - 1) -> _Rule:
    return _Rule(
        f"a whole number from {least} to {most}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
    )


def _one_of(*names: str) -> _Rule:
    return _Rule(f"one of {', '.join(names)}", lambda value: value in names)


def _text(pattern: str, says: str) -> _Rule:
    return _Rule(says, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


_FLAG: Final = _Rule("true or false", lambda value: isinstance(value, bool))
_SHAPES: Final = _text(r"[\w.:/-]+:\d+(x\d+)*(,[\w.:/-]+:\d+(x\d+)*)*", "shapes such as input:1x3x224x224")
_TACTIC: Final = "[+-](CUBLAS|CUBLAS_LT|CUDNN|EDGE_MASK_CONVOLUTIONS|JIT_CONVOLUTIONS)"
_DEVICE: Final = r"(CPU|GPU(\.\d)?|NPU)"

_TENSORRT: Final[Mapping[str, _Rule]] = {
    "tensorrt.device_id": _whole(0, 127),
    "trt_auxiliary_streams": _whole(-1, 64),
    "trt_bf16_enable": _FLAG,
    "trt_build_heuristics_enable": _FLAG,
    "trt_builder_optimization_level": _whole(0, 5),
    "trt_context_memory_sharing_enable": _FLAG,
    "trt_dla_core": _whole(0, 15),
    "trt_dla_enable": _FLAG,
    "trt_dump_ep_context_model": _FLAG,
    "trt_engine_cache_enable": _FLAG,
    "trt_engine_hw_compatible": _FLAG,
    "trt_force_sequential_engine_build": _FLAG,
    "trt_fp16_enable": _FLAG,
    "trt_int8_enable": _FLAG,
    "trt_layer_norm_fp32_fallback": _FLAG,
    "trt_max_partition_iterations": _whole(1, 1_000_000),
    "trt_max_workspace_size": _whole(0),
    "trt_min_subgraph_size": _whole(1, 1_000_000),
    "trt_op_types_to_exclude": _text(r"\w+(,\w+)*", "names of operators with commas between them"),
    "trt_profile_max_shapes": _SHAPES,
    "trt_profile_min_shapes": _SHAPES,
    "trt_profile_opt_shapes": _SHAPES,
    "trt_sparsity_enable": _FLAG,
    "trt_tactic_sources": _text(f"{_TACTIC}(,{_TACTIC})*", "tactics such as -CUDNN,+CUBLAS"),
    "trt_timing_cache_enable": _FLAG,
}
_CUDA: Final[Mapping[str, _Rule]] = {
    "cuda.arena_extend_strategy": _one_of("kNextPowerOfTwo", "kSameAsRequested"),
    "cuda.cudnn_conv1d_pad_to_nc1d": _FLAG,
    "cuda.cudnn_conv_algo_search": _one_of("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "cuda.cudnn_conv_use_max_workspace": _FLAG,
    "cuda.device_id": _whole(0, 127),
    "cuda.do_copy_in_default_stream": _FLAG,
    "cuda.enable_skip_layer_norm_strict_mode": _FLAG,
    "cuda.fuse_conv_bias": _FLAG,
    "cuda.gpu_mem_limit": _whole(1),
    "cuda.prefer_nhwc": _FLAG,
    "cuda.use_tf32": _FLAG,
}
_OPENVINO: Final[Mapping[str, _Rule]] = {
    "openvino.cache_enable": _FLAG,
    "openvino.device_type": _text(
        f"{_DEVICE}|(AUTO|HETERO|MULTI):{_DEVICE}(,{_DEVICE})+", "CPU, GPU, GPU.1, NPU or, say, HETERO:GPU,CPU"
    ),
    "openvino.disable_dynamic_shapes": _FLAG,
    "openvino.enable_opencl_throttling": _FLAG,
    "openvino.enable_qdq_optimizer": _FLAG,
    "openvino.model_priority": _one_of("HIGH", "MEDIUM", "LOW", "DEFAULT"),
    "openvino.num_streams": _whole(1, 64),
    "openvino.precision": _one_of("FP32", "FP16", "ACCURACY"),
}
OPTIONS: Final[Mapping[str, Mapping[str, _Rule]]] = {"tensorrt": _TENSORRT, "cuda": _CUDA, "openvino": _OPENVINO}
"""By provider, as `Target.provider` calls it; those without options are left out."""
_ALL: Final = {key: rule for rules in OPTIONS.values() for key, rule in rules.items()}


def is_option(key: str) -> bool:
    """Whether an engine option belongs to a provider."""
    return key in _ALL


def wants_folder(manifest: VariantManifest) -> bool:
    """Whether a variant asks for something to be kept on the device."""
    kept = ("trt_engine_cache_enable", "trt_timing_cache_enable", "trt_dump_ep_context_model", "openvino.cache_enable")
    return any(manifest.engine.options.get(key) for key in kept)


def settings_of(
    manifest: VariantManifest, provider: str, threads: int | None, folder: Path | None
) -> dict[str, Any]:
    """What one provider is told.

    Args:
        manifest: of the variant; options of other providers are checked as well.
        provider: as `Target.provider` calls it.
        threads: inside one call; None: the provider's default.
        folder: for what it builds; None: nothing is kept.

    Raises:
        UnsupportedFeature: a value that an option does not take.
    """
    chosen = {}
    for key, value in manifest.engine.options.items():
        rule = _ALL.get(key)
        if rule is None or value is None:
            continue
        if not rule.holds(value):
            because = f"engine option {shown(key)} = {shown(value)} is not {rule.says}"
            raise UnsupportedFeature(f"open variant {manifest.id}", because)
        if key in OPTIONS.get(provider, ()):
            chosen[key.removeprefix(f"{provider}.")] = value
    if provider == "tensorrt":
        return _tensorrt(chosen, folder)
    if provider == "openvino":
        return _openvino(chosen, threads, folder)
    if provider == "xnnpack" and threads is not None:
        chosen["intra_op_num_threads"] = threads
    return chosen


def _tensorrt(chosen: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    for kept, place in (("trt_engine_cache_enable", "trt_engine_cache_path"),
                        ("trt_timing_cache_enable", "trt_timing_cache_path")):  # fmt: skip
        chosen[kept] = bool(chosen.get(kept)) and folder is not None
        if chosen[kept]:
            chosen[place] = str(folder)
    if chosen.pop("trt_dump_ep_context_model", False) and folder is not None:
        # Embedded, so that one file is all of it and a half-written pair cannot be met.
        place = str(folder / FRESH_CONTEXT)
        chosen |= dict(zip(DUMPS_CONTEXT, (True, 1, place), strict=True))
    return chosen


def _openvino(chosen: dict[str, Any], threads: int | None, folder: Path | None) -> dict[str, Any]:
    if chosen.pop("cache_enable", False) and folder is not None:
        chosen["cache_dir"] = str(folder)
    if threads is not None:
        chosen["num_of_threads"] = threads
    # Said, because which one it would be otherwise depends on how the library was built.
    return {"device_type": "CPU", **chosen}
