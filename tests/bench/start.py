"""From nothing to the first answer, beside a script that does it with the bare engine."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench.figures import table
from tests.bench.imports import by_owner, imports_ms
from tests.bench.turns import QUIET
from tests.fakes.models import Build, four_pixel_classifier, write_release
from tests.fakes.probe import probe_input, probe_onnx, write_probe

ROUNDS = 25
_IMPORT_RUNS = 5
_ROOT = Path(__file__).resolve().parents[2]
_ENDS = (
    "import os, sys\n"
    "sys.stdout.write([l for l in open('/proc/self/status') if l.startswith('VmHWM')][0].split()[1])\n"
    "sys.stdout.flush(); os._exit(0)\n"
)
"""Says the peak memory and ends, so that nobody's way of ending counts."""


@dataclass(frozen=True)
class _Cost:
    wall_ms: float
    """Until the program has ended."""
    processor_ms: float
    """Of all its threads."""
    peak_mb: float
    """0 where it does not say."""


@dataclass(frozen=True)
class _Program:
    name: str
    command: list[str]
    ratio: float | None = None
    """Most that it may take beside the bare script."""
    megabytes: float | None = None
    """Most memory that it may take beyond it."""


def report() -> list[str]:
    """Measure in turns and return a section of Markdown."""
    with tempfile.TemporaryDirectory() as name:
        programs = _programs(Path(name))
        costs: dict[str, list[_Cost]] = {one.name: [] for one in programs}
        order = random.Random(1)
        for turn in range(ROUNDS + 1):
            # What ran before leaves its traces in the caches: not always the same before the same.
            for one in order.sample(programs, len(programs)):
                cost = _measure(one.command)
                if turn:  # the first writes bytecode and fills the page cache
                    costs[one.name].append(cost)
        imports = {one.name: imports_ms(one.command, _ROOT, _IMPORT_RUNS) for one in programs}
    is_quiet = os.getloadavg()[0] <= QUIET
    counted = "median" if is_quiet else "10th percentile, for the machine is busy"
    place = ROUNDS // 2 if is_quiet else ROUNDS // 10
    taken = {name: sorted(cost.wall_ms for cost in found)[place] for name, found in costs.items()}
    worked = {name: sorted(cost.processor_ms for cost in found)[place] for name, found in costs.items()}
    memory = {name: min(cost.peak_mb for cost in found) for name, found in costs.items()}
    base = programs[0].name
    rows = [
        [
            one.name,
            f"{taken[one.name]:.0f} ms",
            _held(taken[one.name] / taken[base], one.ratio, "{:.2f} x"),
            f"{worked[one.name]:.0f} ms",
            f"{memory[one.name]:.0f} MB" if memory[one.name] else "–",
            _held(memory[one.name] - memory[base], one.megabytes, "{:+.0f} MB") if memory[one.name] else "–",
        ]
        for one in programs
    ]
    return [
        "## Start to first answer",
        "",
        "Each program starts Python, loads the model, checks every digest (ours), and answers once. One thread in the",
        f"engine. {ROUNDS} rounds, in another order each time; {counted};",
        "memory is the peak (VmHWM). The bare script is as anybody writes it: its engine sets up its vendor's",
        "telemetry, which ours switches off.",
        "",
        *table(["program", "time", "to the bare script", "processor", "memory", "beyond it"], rows),
        "",
        "What each program imports beyond the bare script, in milliseconds by `-X importtime` (counting slows imports",
        f"down; least of {_IMPORT_RUNS} runs):",
        "",
        *table(
            ["program", "all", "of which"],
            [
                [name, f"{sum(sums.values()):.1f}", ", ".join(f"{owner} {took:.1f}" for owner, took in sums.items())]
                for name, sums in ((one.name, by_owner(imports[one.name], imports[base])) for one in programs[1:])
            ],
        ),
    ]


def _programs(folder: Path) -> list[_Program]:
    (folder / "probe.onnx").write_bytes(probe_onnx())
    release = write_probe(folder / "release")
    np.save(folder / "x.npy", probe_input())
    pictures = folder / "pictures"
    write_release(pictures, [Build("plain", content=four_pixel_classifier(), options={"intra_op_threads": 1})])
    (folder / "picture.onnx").write_bytes(four_pixel_classifier())
    Image.new("L", (2, 2), 200).save(folder / "p.png")
    given = f"np.load({str(folder / 'x.npy')!r})"
    bare = f"{_bare(folder / 'probe.onnx')}session.run(None, {{'x': {given}}})\n"
    bare_picture = (
        f"{_bare(folder / 'picture.onnx')}from PIL import Image\n"
        f"picture = np.asarray(Image.open({str(folder / 'p.png')!r}), np.float32)[None, None]\n"
        "session.run(None, {session.get_inputs()[0].name: picture})\n"
    )
    ours = (
        "import numpy as np\nfrom edge_runtime import Model\n"
        f"Model.open({str(release)!r}, backends=['onnxruntime']).infer({{'x': {given}}})\n"
    )
    picture = (
        "from edge_runtime import Model\n"
        f"content = open({str(folder / 'p.png')!r}, 'rb').read()\n"
        f"Model.open({str(pictures)!r}, backends=['onnxruntime']).infer({{'image': content}})\n"
    )
    installed = str(Path(sys.executable).with_name("edge-runtime"))
    command = [installed, "run", str(release), str(folder / "x.npy"), "--json", "--backend", "onnxruntime"]
    return [
        _Program("bare script: `import onnxruntime`, session, run", _script(bare)),
        _Program("`Model.open`, tensor in", _script(ours), 1.15, 8),
        _Program("the same with Pillow, PNG in", _script(bare_picture)),
        _Program("`Model.open`, PNG in", _script(picture), 1.25, 25),
        _Program("`edge-runtime run`, tensor file in", command, 1.8),
    ]


def _bare(model: Path) -> str:
    return (
        "import numpy as np, onnxruntime as ort\n"
        "options = ort.SessionOptions(); options.intra_op_num_threads = 1\n"
        f"session = ort.InferenceSession({str(model)!r}, options, providers=['CPUExecutionProvider'])\n"
    )


def _script(code: str) -> list[str]:
    return [sys.executable, "-c", code + _ENDS]


def _measure(command: list[str]) -> _Cost:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    done = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, env=environment)
    assert done.stdout is not None
    output = done.stdout.read()
    _, status, usage = os.wait4(done.pid, 0)
    wall_ms = (time.perf_counter() - began) * 1000
    done.returncode = os.waitstatus_to_exitcode(status)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}")
    last = output.split()[-1]
    processor_ms = (usage.ru_utime + usage.ru_stime) * 1000
    return _Cost(wall_ms, processor_ms, int(last) / 1024 if last.isdigit() else 0.0)


def _held(value: float, bound: float | None, form: str) -> str:
    shown = form.format(value)
    return shown if bound is None else f"{shown} ({'kept' if value <= bound else '**not kept**'}, asked ≤ {bound:g})"
