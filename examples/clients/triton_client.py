"""A stock tritonclient, unchanged, over HTTP or gRPC.

pip install 'tritonclient[http,grpc]'
python -m examples.clients.triton_client http 127.0.0.1:8000 MODEL INPUT OUTPUT PICTURE
python -m examples.clients.triton_client grpc 127.0.0.1:8001 MODEL INPUT OUTPUT PICTURE
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np


def main(arguments: list[str]) -> None:
    protocol, address, model, input_name, output_name, picture = arguments
    triton = importlib.import_module(f"tritonclient.{protocol}")
    refused = importlib.import_module("tritonclient.utils").InferenceServerException
    given = triton.InferInput(input_name, [1], "BYTES")
    given.set_data_from_numpy(np.array([Path(picture).read_bytes()], object))
    try:
        with triton.InferenceServerClient(address) as client:
            answer = client.infer(model, [given], outputs=[triton.InferRequestedOutput(output_name)])
    except (OSError, refused) as error:  # the server is away, or says why it has no answer
        sys.exit(f"no answer from {address}: {error}")
    print(answer.as_numpy(output_name)[0].decode())


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    main(sys.argv[1:])
