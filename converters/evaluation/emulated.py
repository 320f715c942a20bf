"""The process that answers questions on another instruction set: `python -m converters.evaluation.emulated FOLDER`.

Started under QEMU with a Python of that architecture, so it imports nothing but the runtime's inference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from converters.data.answers import AnswerWriter, read_answers
from edge_runtime.contract.codec import decode
from edge_runtime.contract.release import ReleaseManifest, VariantManifest
from edge_runtime.inference.backend import BackendOptions
from edge_runtime.inference.predictor import load_predictor

ANSWERED: Final = "answered"
"""The line on standard output that follows every answer."""


def answer(folder: Path) -> None:
    """Write `folder`/answers: what the variant in `folder` says to `folder`/questions."""
    release = decode((folder / "release.json").read_bytes(), ReleaseManifest)
    variant = decode((folder / "variant.json").read_bytes(), VariantManifest)
    files = {file.role: (folder / f"role-{file.role}").read_bytes() for file in variant.files}
    predictor = load_predictor(release, variant, files, options=BackendOptions(threads=1))
    with AnswerWriter(folder / "answers") as written:
        for question in read_answers(folder / "questions"):
            written.append(predictor.run_decoded(question))
            # Whoever started this counts the lines.
            sys.stdout.write(f"{ANSWERED}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    answer(Path(sys.argv[1]))
