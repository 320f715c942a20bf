"""`edge-convert keygen | sign`: the model team's key, and its signature under a release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from converters.cli.options import Json

app = typer.Typer()


@app.command()
def keygen(path: Annotated[Path, typer.Argument(help="Private key to write; PATH.pub beside it.")]) -> None:
    """Make a model team's key pair: PATH.key stays with the team, PATH.pub goes to the server's owner."""
    from converters.release.signing import keygen as make_key

    public = make_key(path)
    typer.echo(f"{path.with_suffix('.key')}  private: keep it off the server\n{path.with_suffix('.pub')}  public")
    typer.echo(f"key id {public.key_id}\nnext: edge-fleet keys authorise MODEL {path.with_suffix('.pub')}")


@app.command()
def sign(
    release: Annotated[Path, typer.Argument(help="Folder that edge-convert build wrote.")],
    *,
    key: Annotated[Path, typer.Option(help="Private key made by keygen.")],
    metadata: Annotated[Path | None, typer.Option(help="models-NAME.json; beside the release if not said.")] = None,
    server: Annotated[str | None, typer.Option(help="Take the role's current metadata from this server.")] = None,
    api_key: Annotated[
        str | None, typer.Option(help="API key, or @FILE that holds it.", envvar="EDGEFLEET_API_KEY")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="CA certificate that the server's certificate is checked by.")] = None,
    as_json: Json = False,
) -> None:
    """Add a release to its model's signed metadata; nothing is written into the release itself."""
    import json

    from converters.commands.sign import Server, sign_release_folder

    written = sign_release_folder(release, key, metadata, Server(server, api_key, ca) if server else None)
    text = f"signed {release}\nmetadata {written}\nnext: edge-fleet releases push {release} --metadata {written}"
    typer.echo(json.dumps({"release": str(release), "metadata": str(written)}) if as_json else text)
