"""Plays the five commands between a trained model and a signed release; each is printed before it runs."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MODEL = HERE.parent / "fleet_on_a_laptop" / "model"


def main() -> int:
    """Run every command; ends with the status of the first that fails."""
    parser = argparse.ArgumentParser(prog="python -m examples.quantize_and_ship", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("digits-out"), help="new folder for release, report and key")
    out: Path = parser.parse_args().out
    try:
        out.mkdir(parents=True)
    except OSError as error:
        sys.stderr.write(f"cannot make {out}: {error.strerror}; name another folder with --out\n")
        return 1
    release, key = out / "digits-1.0.0", out / "digits.key"
    steps = (
        ("look at the model first", "edge-convert", "check", MODEL / "digits.onnx", "--target", "cpu"),
        ("quantise, measure, judge, package", "edge-convert", "build", "--recipe", HERE / "recipe.toml", "-o", release),
        ("make a key once", "edge-convert", "keygen", key),
        ("sign", "edge-convert", "sign", release, "--key", key),
        (
            "ask the release, as a device would",
            "edge-runtime",
            "run",
            release,
            min((MODEL / "live").glob("*.png")),
        ),
    )
    for number, (why, *command) in enumerate(steps, 1):
        print(f"\n{number}  {why}\n$ {shlex.join(map(str, command))}", flush=True)
        if (status := _run(*command)) != 0:
            return status
    print(f"\nthe report: {release}.report.html\nthe signed metadata: {out / 'models-digits.json'}")
    return 0


def _run(command: str | Path, *arguments: str | Path) -> int:
    modules = {"edge-convert": "converters.entry", "edge-runtime": "edge_runtime.entry"}
    program = f"import sys; sys.argv[0] = {str(command)!r}; from {modules[str(command)]} import main; main()"
    # The clone's own packages, wherever this is called from.
    path = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    whole = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(whole, check=False, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
