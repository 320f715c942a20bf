"""Makes the video, builds or takes a release, and runs the pipeline; each command is printed before it runs."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Count; ends with the status of the first command that fails."""
    parser = argparse.ArgumentParser(prog="python -m examples.camera_counter", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("counter-out"), help="new folder for what it makes")
    parser.add_argument("--release", type=Path, help="a detector of yours; without it, the demo's digits are counted")
    parser.add_argument("--photos", type=Path, help="photos that become the video of --release")
    given = parser.parse_args()
    if (given.release is None) != (given.photos is None):
        parser.error("--release and --photos belong together")
    out: Path = given.out
    if find_spec("cv2") is None:
        sys.stderr.write("cannot make a video: OpenCV is not installed; pip install 'edgefleet[vision]'\n")
        return 1
    try:
        out.mkdir(parents=True)
    except OSError as error:
        sys.stderr.write(f"cannot make {out}: {error.strerror}; name another folder with --out\n")
        return 1
    return _count_digits(out) if given.release is None else _count_objects(out, given.release, given.photos)


def _count_digits(out: Path) -> int:
    from examples.camera_counter.video import write_belt

    truth = write_belt(out / "camera.avi")
    shutil.copy(HERE / "digits.toml", out / "pipeline.toml")
    shutil.copy(HERE / "counting.py", out)
    status = _run("edge-convert", "build", "--recipe", HERE / "recipe.toml", "-o", out / "digits-1.0.0")
    status = status or _run("edge-runtime", "pipeline", out / "pipeline.toml", "--trust-code")
    if status == 0:
        listed = ", ".join(f"{count} × {label}" for label, count in sorted(Counter(truth).items()))
        print(f"really there: {listed}")
    return status


def _count_objects(out: Path, release: Path, photos: Path) -> int:
    from examples.camera_counter.video import write_slideshow

    if not (photos.is_dir() and write_slideshow(out / "camera.avi", photos)):
        sys.stderr.write(f"cannot make a video: {photos} holds no photos; name a folder with JPEG or PNG files\n")
        return 1
    text = (HERE / "objects.toml").read_text(encoding="utf-8")
    (out / "pipeline.toml").write_text(text.replace("RELEASE", str(release.resolve())), encoding="utf-8")
    shutil.copy(HERE / "counting.py", out)
    return _run("edge-runtime", "pipeline", out / "pipeline.toml", "--trust-code")


def _run(command: str, *arguments: str | Path) -> int:
    print(f"\n$ {shlex.join(map(str, (command, *arguments)))}", flush=True)
    modules = {"edge-convert": "converters.entry", "edge-runtime": "edge_runtime.entry"}
    program = f"import sys; sys.argv[0] = {command!r}; from {modules[command]} import main; main()"
    # The clone's own packages, wherever this is called from.
    path = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))
    whole = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(whole, check=False, env={**os.environ, "PYTHONPATH": path}).returncode


if __name__ == "__main__":
    sys.exit(main())
