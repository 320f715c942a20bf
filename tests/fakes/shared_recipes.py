"""What a recipe says of inputs and outputs of each model that lies beside the repository."""

from __future__ import annotations

from typing import Any, Final

_PILLOW: Final = {"filter": "bilinear", "antialias": True}
_OPENCV: Final = {"filter": "bilinear", "antialias": False}


def picture(tensor: str, side: Any, scale: float, mean: list[float], std: list[float], layout: str, **rest: Any) -> Any:
    """A picture stretched to its size as Pillow does, unless `resize` says otherwise."""
    size = [side, side] if isinstance(side, int) else side
    resize = {"mode": "stretch", "size": size, **_PILLOW}
    entry = {"tensor": tensor, "kind": "image", "color": "rgb", "exif": "apply", "resize": resize, "layout": layout,
             "normalize": {"scale": scale, "mean": mean, "std": std}}  # fmt: skip
    return {"image": {**entry, **rest}}


def classes(tensor: str, activation: str, labels: str | None = None, **rest: Any) -> Any:
    """Classes, best first."""
    answer = {"tensor": tensor, "kind": "classes", "activation": activation, **rest}
    return {"classes": {**answer, "labels": labels} if labels else answer}


def imagenet(tensor: str) -> Any:
    """1001 classes; 0 is the background."""
    return classes(tensor, "none", "labels/imagenet_labels.txt", ignore=[0])


def keywords(tensor: str, output: str, activation: str) -> Any:
    """A second of sound to 49 frames of 10 cepstra."""
    steps = [
        {"op": "amplitude", "mode": "peak"},
        {"op": "frame", "length": 480, "hop": 320, "tail": "drop"},
        {"op": "stft", "fft": 512, "window": "hann_periodic", "center": False, "power": 1},
        {"op": "mel", "bins": 40, "fmin_hz": 20.0, "fmax_hz": 4000.0, "scale": "htk", "norm": "none"},
        {"op": "log", "kind": "ln", "add": 1e-6},
        {"op": "dct", "type": 2, "norm": "ortho", "keep": 10},
    ]
    sound = {"tensor": tensor, "kind": "audio", "sample_rate_hz": 16000, "channels": 1, "dtype": "int16",
             "steps": steps}  # fmt: skip
    return {"inputs": {"audio": sound}, "outputs": classes(output, activation)}


def machine_sound(tensor: str, output: str) -> Any:
    """Log-mel frames, five at a time; the score is how badly they are reconstructed."""
    steps = [{"op": "stack", "frames": 5, "hop": 1}]
    frames = {"tensor": tensor, "kind": "tensor", "layout": "TC", "shape": ["T", 128], "steps": steps}
    step = {"op": "reconstruction", "metric": "mse", "over": tensor, "aggregate": "mean"}
    return {
        "inputs": {"frames": frames},
        "outputs": {"anomaly": {"tensor": output, "kind": "anomaly", "steps": [step]}},
    }


def suppression(iou: float) -> Any:
    """Hard suppression within a class."""
    return {"op": "nms", "iou": iou, "per_class": True, "kind": "hard", "in_graph": False}


def detector(tensor: str, detect: Any, nms: Any = None, labels: str | None = None) -> Any:
    """Objects in pixels of the picture."""
    steps = [{"op": "detect", "activation": "none", "max": 100, "score": "cls", **detect}, *([nms] if nms else [])]
    answer = {"tensor": tensor, "kind": "detections", "steps": steps}
    return {"objects": {**answer, "labels": labels} if labels else answer}


def faces(tensor: str, scores: str, **detect: Any) -> Any:
    """UltraFace: threshold 0.7, overlap 0.3."""
    return detector(tensor, {"scores": scores, "box_units": "normalized", "min_score": 0.7, **detect}, suppression(0.3))


_CATS: Final = [127.5, 127.5, 127.5]
_BYTES: Final = (1.0, [128.0], [128.0])
"""What the quantisation of these files (scale 1/128, zero point 128) makes of bytes."""
_MOBILENET: Final = "MobilenetV1/Predictions/Reshape_1"
_SSD: Final = "TFLite_Detection_PostProcess"

RECIPES: Final[dict[str, Any]] = {
    "tflite/mobilenet_v1_0.25_224_float.tflite": {
        "inputs": picture("input", 224, 1.0, _CATS, _CATS, "NHWC"), "outputs": imagenet(_MOBILENET),
    },
    "onnx/mobilenet_v1_0.25_224_fp32.onnx": {
        "inputs": picture("input", 224, 1.0, _CATS, _CATS, "NCHW"), "outputs": imagenet("probabilities"),
    },
    "tflite/mobilenet_v1_0.25_224_quant.tflite": {
        "inputs": picture("input", 224, *_BYTES, "NHWC"), "outputs": imagenet(_MOBILENET),
    },
    "tflite/mobilenet_v1_0.25_128_quant.tflite": {
        "inputs": picture("input", 128, *_BYTES, "NHWC"), "outputs": imagenet(_MOBILENET),
    },
    "tflite/mobilenet_v2_1.0_224_quant.tflite": {
        "inputs": picture("input", 224, *_BYTES, "NHWC"), "outputs": imagenet("MobilenetV2/Predictions/Softmax"),
    },
    "tflite/ssd_mobilenet_v1_coco_quant.tflite": {
        "inputs": picture("normalized_input_image_tensor", 300, *_BYTES, "NHWC"),
        "outputs": detector(
            _SSD,
            {"family": "tflite_postprocess", "classes": f"{_SSD}:1", "scores": f"{_SSD}:2", "count": f"{_SSD}:3",
             "box_format": "yxyx", "box_units": "normalized", "min_score": 0.5},
            labels="labels/coco_labels.txt",
        ),
    },
    "tflite/deeplabv3_mnv2_dm05_pascal_quant.tflite": {
        "inputs": picture("MobilenetV2/MobilenetV2/input", 513, *_BYTES, "NHWC"),
        "outputs": {"mask": {
            "tensor": "ArgMax", "kind": "segmentation", "labels": "labels/pascal_voc_segmentation_labels.txt",
            "steps": [{"op": "segment", "source": "classmap", "resize_to": "original"}],
        }},
    },
    "tflite/vww_96_float.tflite": {
        "inputs": picture("input_1", 96, 1.0, [0.0], [255.0], "NHWC"), "outputs": classes("Identity", "none"),
    },
    "tflite/vww_96_int8.tflite": {
        "inputs": picture("input_1_int8", 96, 1.0, [0.0], [255.0], "NHWC"), "outputs": classes("Identity_int8", "none"),
    },
    "onnx/mlperf_tiny_vww.onnx": {
        "inputs": picture("actual_input_1", 96, 1.0, [0.0], [255.0], "NCHW"), "outputs": classes("output1", "softmax"),
    },
    "tflite/resnet8_cifar10_float.tflite": {
        "inputs": picture("input_1", 32, 1.0, [0.0], [1.0], "NHWC"), "outputs": classes("Identity", "none"),
    },
    "tflite/resnet8_cifar10_int8.tflite": {
        "inputs": picture("input_1_int8", 32, 1.0, [0.0], [1.0], "NHWC"), "outputs": classes("Identity_int8", "none"),
    },
    "onnx/mlperf_tiny_ic.onnx": {
        "inputs": picture("actual_input_1", 32, 1 / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW"),
        "outputs": classes("output1", "softmax"),
    },
    "onnx/mnist-8.onnx": {
        "inputs": picture("Input3", 28, 1.0, [0.0], [1.0], "NCHW", color="gray"),
        "outputs": classes("Plus214_Output_0", "softmax"),
    },
    "tflite/keypoint_classifier.tflite": {
        "inputs": {"hand": {"tensor": "input_1", "kind": "table", "steps": [
            {"op": "columns", "names": [f"{axis}{point}" for point in range(21) for axis in "xy"], "dtype": "float32",
             "missing": "error"},
            {"op": "relative", "origin": 0, "scale": "max_abs", "coordinates": 2},
        ]}},
        "outputs": classes("Identity", "none", "labels/keypoint_classifier_label.csv"),
    },
    "tflite/hello_world_float.tflite": {
        "inputs": {"x": {"tensor": "serving_default_dense_input:0", "kind": "tensor"}},
        "outputs": {"sine": {"tensor": "StatefulPartitionedCall:0", "kind": "values",
                             "steps": [{"op": "regression", "unit": "1", "scale": 1.0}]}},
    },
    "tflite/hello_world_int8.tflite": {
        "inputs": {"x": {"tensor": "serving_default_dense_input:0", "kind": "tensor"}},
        "outputs": {"sine": {"tensor": "StatefulPartitionedCall:0", "kind": "values",
                             "steps": [{"op": "regression", "unit": "1", "scale": 1.0}]}},
    },
    "tflite/kws_ref_model_float32.tflite": keywords("input_1", "Identity", "none"),
    "tflite/kws_ref_model_int8.tflite": keywords("input_1", "Identity", "none"),
    "onnx/mlperf_tiny_kws.onnx": keywords("x:0", "Identity:0", "softmax"),
    "tflite/ad01_fp32.tflite": machine_sound("input_1", "Identity"),
    "tflite/ad01_int8.tflite": machine_sound("input_1", "Identity"),
    "onnx/mlperf_tiny_ad.onnx": machine_sound("actual_input_1", "output1"),
    "onnx/fastestdet_coco_352.onnx": {
        "inputs": picture("input.1", 352, 1.0, [0.0], [255.0], "NCHW", color="bgr",
                          resize={"mode": "stretch", "size": [352, 352], **_OPENCV}),
        "outputs": detector(
            "758",
            {"family": "fastestdet", "score": "obj^0.6*cls^0.4", "box_format": "offsets", "box_units": "grid",
             "min_score": 0.5},
            suppression(0.45),
        ),
    },
    "onnx/ultraface_rfb320.onnx": {
        "inputs": picture("input", [240, 320], 1.0, [127.0], [128.0], "NCHW"),
        "outputs": faces("boxes", "scores", family="ultraface", box_format="xyxy"),
    },
    "tflite/ultraface_rfb320.tflite": {
        "inputs": picture("input_1", [240, 320], 1.0, [127.0], [128.0], "NHWC"),
        "outputs": faces(
            "Identity", "Identity_1", family="ultraface_raw", box_format="offsets", strides=[8, 16, 32, 64],
            anchor_sizes=[[10.0, 16.0, 24.0], [32.0, 48.0], [64.0, 96.0], [128.0, 192.0, 256.0]], variances=[0.1, 0.2],
        ),
    },
}  # fmt: skip
"""By file; silero_vad, which remembers, is described and built in test_stateful_models.py."""
