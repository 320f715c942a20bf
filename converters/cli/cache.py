"""`edge-convert cache show | clear`: finished stages of earlier builds."""

from __future__ import annotations

import typer

from converters.cli.options import CacheFolder, Json, cache_folder

app = typer.Typer(help="Finished stages of earlier builds, kept so that they are not done again.")


@app.command()
def show(cache: CacheFolder = None, as_json: Json = False) -> None:
    """Say what the cache holds, and how much of the disk that takes."""
    from converters.commands.cache import show_cache

    typer.echo(show_cache(cache_folder(cache), as_json=as_json))


@app.command()
def clear(cache: CacheFolder = None, as_json: Json = False) -> None:
    """Remove everything from the cache; the next build does it again."""
    from converters.commands.cache import clear_cache

    typer.echo(clear_cache(cache_folder(cache), as_json=as_json))
