"""From a picture's file to the model's size in one go, where a release declares Pillow's resize.

Pillow keeps pixels in its own form; taking them out at full size only to hand them back costs a quarter of the
decoding. What comes out is exactly what `decode` followed by `resize` gives.
"""

from __future__ import annotations

import numpy as np

from edge_runtime.contract.steps import Decode, Resize
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.given import with_batch
from edge_runtime.inference.images import CHANNELS, open_picture, resize_picture
from edge_runtime.inference.preprocess import Chain, Inputs, Preprocessor
from edge_runtime.inference.values import Value


def prepare(preprocess: Preprocessor, inputs: Inputs) -> tuple[dict[str, Array], Tensors]:
    """Feeds, and the inputs after `decode`, of which pictures that were resized on the way keep only their shape.

    Raises:
        InferenceError: as `Preprocessor`.
    """
    short = [chain for chain in preprocess.chains if _may_shorten(chain, inputs)]
    if not short or preprocess.rules is not None:
        decoded = preprocess.decode(inputs)
        return preprocess.after_decode(decoded), decoded
    preprocess.check_names(inputs)
    feeds, seen = dict(preprocess.constants), {}
    for chain in preprocess.chains:
        given = inputs[chain.source.name]
        if chain in short and isinstance(given, bytes):
            feeds[chain.tensor], seen[chain.source.name] = _shortened(preprocess, chain, given)
        else:
            seen[chain.source.name] = preprocess.decoded(chain, given)
            feeds[chain.tensor] = preprocess.fed(chain, seen[chain.source.name])
    return feeds, seen


def _may_shorten(chain: Chain, inputs: Inputs) -> bool:
    first = chain.kept[0] if chain.kept else None
    return (
        chain.decode is not None
        and isinstance(first, Resize)
        and first.antialias
        and chain.decode.color in {"rgb", "gray"}
        and isinstance(inputs.get(chain.source.name), bytes)
    )


def _shortened(preprocess: Preprocessor, chain: Chain, content: bytes) -> tuple[Array, Array]:
    decode, first = chain.decode, chain.kept[0]
    assert isinstance(decode, Decode)
    assert isinstance(first, Resize)
    with open_picture(content, decode, chain.source.accept) as picture:
        # No memory for pixels that nobody reads: one zero, seen as a picture of the right size.
        whole = np.broadcast_to(np.uint8(0), (1, picture.height, picture.width, CHANNELS[decode.color]))
        with_batch(whole, chain.source, preprocess.axes, decode.color)
        value = Value(resize_picture(picture, first), "NHWC", decode.color)
    for step in chain.steps[1:]:
        value = step(value)
    return chain.finish(value), whole
