"""The step that makes numbers of text, reserved for runtimes that read text."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from edge_runtime.contract.steps import Preparing


class Tokenize(Preparing, frozen=True, kw_only=True, tag="tokenize"):
    """Text to token ids; needs the feature `tokenizer`."""

    tokenizer: str
    max_length: int
    padding: str
    truncation: str
    outputs: list[str]
