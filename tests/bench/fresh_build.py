"""Our own build, alone in a fresh process: python -m tests.bench.fresh_build RECIPE OUT CACHE prints its cost."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from converters.pipeline.build import build
from converters.pipeline.finishing import BuildOptions
from converters.planning.recipe import parse_recipe
from tests.bench.rival import peak_bytes


def main() -> None:
    recipe, out, cache = map(Path, sys.argv[1:])
    began = time.monotonic()
    options = BuildOptions(base=recipe.parent, out=out, cache=cache)
    build(parse_recipe(recipe.read_bytes(), recipe.suffix), options, lambda _: None)
    # Compilers run in processes of their own: the largest of all counts.
    peak = max(peak_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    print(json.dumps({"wall_s": time.monotonic() - began, "peak_bytes": peak, "version": "edgefleet"}))


if __name__ == "__main__":
    main()
