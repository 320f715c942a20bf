"""From a picture's file to the model's size in one go, where a release declares Pillow's resize.

Pillow keeps pixels in its own form; taking them out at full size only to hand them back costs a quarter of the
decoding. What comes out is exactly what `decode` followed by `resize` gives.
"""

from __future__ import annotations

import msgspec
import numpy as np

from edge_runtime.contract.image_steps import Decode, Resize
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.preprocessing.images import open_picture, resize_picture
from edge_runtime.inference.preprocessing.preprocess import Chain, Inputs, Preprocessor
from edge_runtime.inference.preprocessing.values import CHANNELS, Value, with_batch


class Prepared(msgspec.Struct, frozen=True):
    """What became of a call's inputs."""

    feeds: dict[str, Array]
    """What the file takes, by canonical tensor."""
    decoded: Tensors
    """After `decode`, by input; of pictures that were resized on the way only the shape is true."""
    seen: Tensors
    """The same for whoever looks at the numbers: those pictures as they were resized."""


def prepare(preprocess: Preprocessor, inputs: Inputs) -> Prepared:
    """Prepare inputs of which some are encoded pictures.

    Raises:
        InferenceError: as `Preprocessor`.
    """
    if preprocess.rules is not None or not any(_may_shorten(chain, inputs) for chain in preprocess.chains):
        decoded = preprocess.decode(inputs)
        return Prepared(preprocess.after_decode(decoded), decoded, decoded)
    preprocess.check_names(inputs)
    feeds: dict[str, Array] = dict(preprocess.constants)
    whole: dict[str, Array] = {}
    seen: dict[str, Array] = {}
    for chain in preprocess.chains:
        name, given = chain.source.name, inputs[chain.source.name]
        if isinstance(given, bytes) and _may_shorten(chain, inputs):
            feeds[chain.tensor], whole[name], seen[name] = _shortened(preprocess, chain, given)
        else:
            seen[name] = whole[name] = preprocess.decoded(chain, given)
            feeds[chain.tensor] = preprocess.fed(chain, whole[name])
    return Prepared(feeds, whole, seen)


def _may_shorten(chain: Chain, inputs: Inputs) -> bool:
    return chain.is_resized_by_pillow and isinstance(inputs.get(chain.source.name), bytes)


def _shortened(preprocess: Preprocessor, chain: Chain, content: bytes) -> tuple[Array, Array, Array]:
    decode, first = chain.decode, chain.kept[0]
    assert isinstance(decode, Decode)
    assert isinstance(first, Resize)
    with open_picture(content, decode, chain.source.accept, chain.reduction) as picture:
        # No memory for pixels that nobody reads: one zero, seen as a picture of the right size.
        whole = np.broadcast_to(np.uint8(0), (1, picture.height, picture.width, CHANNELS[decode.color]))
        with_batch(whole, chain.source, preprocess.axes, decode.color)
        resized = resize_picture(picture, first)
    value = Value(resized, "NHWC", decode.color)
    for step in chain.steps[1:]:
        value = step(value)
    return chain.finish(value), whole, resized
