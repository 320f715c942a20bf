"""Our own client, which is the same for every door: the address decides.

python -m examples.clients.ask unix:/run/edge/models.sock MODEL PICTURE
python -m examples.clients.ask http://127.0.0.1:8000 MODEL PICTURE
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge_runtime.client import Busy, connect
from edge_runtime.contract.errors import EdgeError


def main(address: str, model: str, picture: str) -> None:
    content = Path(picture).read_bytes()
    try:
        with connect(address) as client:
            described = client.describe(model)
            # Answers that an application understands come as JSON, one document for each picture.
            readable = [output.name for output in described.outputs if output.dtype == "bytes"]
            answer = client.infer(model, {described.inputs[0].name: [content]}, readable, deadline_s=1.0)
    except Busy as error:
        sys.exit(f"try again in {error.retry_after_s} s: {error}")
    except EdgeError as error:  # the server is away, or says why it has no answer
        sys.exit(str(error))
    for name in readable:
        print(answer.version, name, *(document.decode() for document in answer[name]))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
