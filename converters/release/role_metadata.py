"""The role metadata in force, asked from the fleet server: signing on top of an older copy would drop releases."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final

import httpx

from edge_runtime.contract.errors import TransportError
from edge_runtime.contract.ids import ModelName, shown

TIMEOUT_S: Final = 20.0
_HEADER_TEXT: Final = re.compile(r"[!-~]{1,200}")
MAX_BYTES: Final = 4 * 1024 * 1024


def fetch_role_metadata(server: str, model: ModelName, api_key: str | None, ca: Path | None) -> bytes | None:
    """The model's signed metadata as the server holds it; None when the model has no release there yet.

    Args:
        server: address of the people's listener, `http://host:port`.
        model: whose role is meant.
        api_key: sent as a bearer token.
        ca: certificate authority to check the server by; None: the system's.

    Raises:
        TransportError: the server cannot be reached, refuses, or answers nonsense.
    """
    what = f"read the metadata of model {model} from {server}"
    if api_key and not _HEADER_TEXT.fullmatch(api_key):
        # Never quoted: a wrong file may hold another secret.
        raise TransportError(what, "what --api-key gives is no API key", "write @FILE for a key in a file")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        verify = ssl.create_default_context(cafile=str(ca) if ca else None)
        with httpx.Client(base_url=server, timeout=TIMEOUT_S, verify=verify) as client:
            answer = client.get(f"/api/v1/trust/models/{model}", headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise TransportError(what, str(error) or type(error).__name__, "check the address and --ca") from error
    if answer.status_code == 404:
        return None
    if answer.status_code in {401, 403}:
        raise TransportError(what, "the server does not accept the API key", "give one with --api-key")
    if answer.status_code != 200 or len(answer.content) > MAX_BYTES:
        raise TransportError(what, f"it answered {answer.status_code} {shown(answer.text[:120])}")
    return answer.content
