"""Signs a release, from the role metadata that is in force."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from converters.errors import BadRecipe


@dataclass(frozen=True, slots=True)
class Server:
    """A fleet server as the command line names it."""

    url: str
    api_key: str | None
    """The key, or `@FILE` that holds it."""
    ca: Path | None

    def key(self) -> str | None:
        """The API key itself. Raises: BadRecipe when its file cannot be read."""
        if self.api_key is None or not self.api_key.startswith("@"):
            return self.api_key
        try:
            return Path(self.api_key[1:]).read_text(encoding="utf-8").strip()
        except OSError as error:
            because = error.strerror or str(error)
            raise BadRecipe(f"read the API key in {self.api_key[1:]}", because, "check --api-key") from error


def sign_release_folder(release: Path, key: Path, metadata: Path | None, server: Server | None) -> Path:
    """Sign a release into its role's metadata; returns the file written.

    Args:
        release: folder of the release.
        key: the model team's private key.
        metadata: file to write; None: beside the release.
        server: where to take the metadata in force from; None: from the file.

    Raises:
        EdgeError: the release, the key or the metadata cannot be used.
    """
    from converters.release.role_metadata import fetch_role_metadata
    from converters.release.signing import sign_release
    from edge_runtime.contract.layout import LayoutFolder
    from edge_runtime.trust.keys import SigningKey

    current = None
    if server is not None:
        model = LayoutFolder(release).open().manifest.name
        current = fetch_role_metadata(server.url, model, server.key(), server.ca)
    return sign_release(release, SigningKey.load(key), metadata, current, now=time.time())
