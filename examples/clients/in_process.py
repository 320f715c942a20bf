"""No door at all: the model in this process.

python -m examples.clients.in_process RELEASE PICTURE
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge_runtime import Model


def main(release: str, picture: str) -> None:
    with Model.open(release) as model:
        name = model.release.manifest.signature.inputs[0].name
        print(model.infer({name: Path(picture).read_bytes()}))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
