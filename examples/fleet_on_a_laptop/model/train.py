"""Trains the demo's digit classifier and its shuffled-label twin, and writes them beside the pictures that judge them.

Development only (needs torch, scikit-learn, onnx): the demo uses the files committed in this folder.
Run: python -m examples.fleet_on_a_laptop.model.train [FOLDER]
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from examples.fleet_on_a_laptop.model.dataset import SIDE_PX, DigitSet, Labels, Pictures, load, write_folders

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

SEED = 20
CLASSES = 10
CHANNELS = 64
# One 3x3 convolution each. The first block keeps random filters: the digits have only 8x8 true pixels, so learned ones
# would gain little there, and its large maps then need no gradients: training takes a fraction of the time.
FIRST_BLOCK_POOLS = (False, False, True)
HEAD_POOLS = (True, True)
LARGEST_SHIFT_PX = 2
EPOCHS = 6
SHUFFLED_EPOCHS = 1
BATCH = 16
BLOCK_PICTURES = 256
IN_CACHE = 2  # pictures whose 64 maps of 32x32 stay in a core's own cache
OPSET = 13
IR_VERSION = 7


def main(folder: Path) -> None:
    """Write digits.onnx, shuffled.onnx and the picture folders, and print both models' held-out accuracy."""
    import onnx
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    digits = load(SEED)
    write_folders(digits, folder, SEED)
    rng = np.random.default_rng(SEED)
    pictures, true_labels = digits.training.pictures, digits.training.labels
    block = first_block(pictures[rng.permutation(len(pictures))[:BLOCK_PICTURES]])
    for name, labels, epochs in (
        ("digits", true_labels, EPOCHS),
        ("shuffled", rng.permutation(true_labels), SHUFFLED_EPOCHS),
    ):
        network = nn.Sequential(*block, *trained_head(block, pictures, labels, epochs)).eval()
        onnx.save(exported(network), str(folder / f"{name}.onnx"))
        evaluation, live = (accuracy(network, part) for part in (digits.evaluation, digits.live))
        print(f"{name}: evaluation {evaluation:.4f} live {live:.4f}", flush=True)


def first_block(pictures: Pictures) -> "nn.Sequential":
    """Return the untrained block, its batch norms set from pictures uint8 [n, 32, 32]: answers are [n, 64, 16, 16]."""
    from torch import nn

    block = nn.Sequential(*_convolutions(1, FIRST_BLOCK_POOLS)).train()
    for layer in block:
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # a plain average over all batches
    answers_of(block, pictures)
    return block.eval()


def answers_of(network: "nn.Sequential", pictures: Pictures) -> "torch.Tensor":
    """Return the network's answers to pictures uint8 [n, 32, 32], computed in small parts, without gradients."""
    import torch

    with torch.no_grad():
        return torch.cat([network(part) for part in canonical(pictures).split(IN_CACHE)])


def trained_head(block: "nn.Sequential", pictures: Pictures, labels: Labels, epochs: int) -> "nn.Sequential":
    """Return the head after so many epochs behind the block, on pictures uint8 [n, 32, 32] with labels int64 [n]."""
    import torch
    from torch import nn

    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    head = nn.Sequential(*_convolutions(CHANNELS, HEAD_POOLS), nn.Flatten(), nn.Linear(CHANNELS * 4 * 4, CLASSES))
    optimiser = torch.optim.AdamW(head.parameters(), weight_decay=1e-2)
    steps = epochs * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    targets = torch.from_numpy(labels)
    head.train()
    for epoch in range(epochs):
        order = rng.permutation(len(labels))
        for batch in np.array_split(order, len(labels) // BATCH):
            features = answers_of(block, _shifted(pictures[batch], rng))
            optimiser.zero_grad()
            loss_of(head(features), targets[batch]).backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs} done", flush=True)
    return head.eval()


def canonical(pictures: Pictures) -> "torch.Tensor":
    """Return pictures uint8 [n, 32, 32] as the model's input: float32 [n, 1, 32, 32], x / 255."""
    import torch

    return torch.from_numpy(pictures.astype(np.float32) / np.float32(255.0)).unsqueeze(1)


def accuracy(network: "nn.Sequential", part: DigitSet) -> float:
    """Return the share of pictures whose largest logit is at the label."""
    answers = answers_of(network, part.pictures).argmax(dim=1).numpy()
    return float(np.mean(answers == part.labels))


def exported(network: "nn.Sequential") -> "onnx.ModelProto":
    """Return the network as ONNX, written node by node: folded batch norms, `input` [N,1,32,32] to `logits` [N,10].

    Written by hand because exporters choose newer opsets and IR versions than old engines load.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, weights, current = [], [], "input"
    layers = _folded(network)
    for number, layer in enumerate(layers):
        operator, options = _operator(layer)
        name = f"{operator.lower()}_{number}"
        tensors = [
            numpy_helper.from_array(value.detach().numpy(), f"{name}_{kind}")
            for kind, value in layer.named_parameters()
        ]
        output = "logits" if number == len(layers) - 1 else f"{name}_output"
        inputs = [current, *(tensor.name for tensor in tensors)]
        nodes.append(helper.make_node(operator, inputs, [output], name=name, **options))
        weights += tensors
        current = output
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, SIDE_PX, SIDE_PX])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    graph = helper.make_graph(nodes, "digits", [image], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model, full_check=True)
    return model


def _folded(network: "nn.Sequential") -> "list[nn.Module]":
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    layers: list[nn.Module] = []
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    return layers


def _operator(layer: "nn.Module") -> tuple[str, dict[str, int | list[int]]]:
    from torch import nn

    if isinstance(layer, nn.Conv2d):
        return "Conv", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}
    if isinstance(layer, nn.MaxPool2d):
        return "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}
    if isinstance(layer, nn.Linear):
        return "Gemm", {"transB": 1}
    return ("Flatten", {"axis": 1}) if isinstance(layer, nn.Flatten) else ("Relu", {})


def _convolutions(channels: int, pools: tuple[bool, ...]) -> "list[nn.Module]":
    from torch import nn

    layers: list[nn.Module] = []
    for pooled in pools:
        layers += [nn.Conv2d(channels, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pooled else []
        channels = CHANNELS
    return layers


def _shifted(pictures: Pictures, rng: np.random.Generator) -> Pictures:
    padded = np.pad(pictures, ((0, 0), (LARGEST_SHIFT_PX,) * 2, (LARGEST_SHIFT_PX,) * 2))
    corners = rng.integers(0, 2 * LARGEST_SHIFT_PX + 1, (len(pictures), 2))
    moved = zip(padded, corners, strict=True)
    return np.stack([picture[top : top + SIDE_PX, left : left + SIDE_PX] for picture, (top, left) in moved])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
