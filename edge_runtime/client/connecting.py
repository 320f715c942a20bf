"""From an address to a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import shown

if TYPE_CHECKING:
    import ssl

    from edge_runtime.client.model import Client


def connect(address: str, *, token: str = "", tls: ssl.SSLContext | None = None, patience_s: float = 60.0) -> Client:
    """A client of the server at an address; close it, or use it as a context manager.

    Args:
        address: `unix:/path/of/the.sock`: tensors in shared memory where both sides can; `unix-stream:/path`: in the
            socket's stream; `http://host:port`, `https://host:port`: Open Inference Protocol v2, whoever serves it.
        token: for network doors that demand one.
        tls: for https: whom to trust; None: the system's authorities.
        patience_s: how long to wait for any one answer.

    Raises:
        TransportError: nobody listens there, or something else.
        Refused: the server does not let this process in.
        ContractError: no such address can be.
    """
    kind, _, rest = address.partition(":")
    if kind in {"unix", "unix-stream"} and rest:
        from edge_runtime.client.local import LocalClient

        return LocalClient(rest, shared_memory=kind == "unix", patience_s=patience_s)
    if kind in {"http", "https"}:
        from edge_runtime.client.http import HttpClient

        return HttpClient(address, token=token, tls=tls, patience_s=patience_s)
    raise ContractError(f"connect to {shown(address)}", "it is no address", "use unix:/PATH or http://HOST:PORT")
