"""Asks a candidate on other instruction sets that its targets have, as far as they can be emulated and may differ."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from converters.building.workshop import open_built
from converters.evaluation.emulation import Emulator
from converters.pipeline.asking import Asked, Here, ask_elsewhere
from converters.pipeline.candidates import Bench, arithmetic_of
from converters.planning.judge import is_narrow_target
from converters.release.variants import Built


def emulators_for(built: Built, bench: Bench) -> list[Emulator]:
    """Where a candidate is asked besides."""
    candidate = built.candidate
    if not candidate.method.is_quantised or built.manifest.build is not None:
        return []
    # What is safe by construction answers on every x86 as it does here.
    is_alike = candidate.method.is_overflow_safe or not is_narrow_target(candidate, bench.order.plan)
    return [
        emulator
        for emulator in bench.emulators
        if emulator.arch in candidate.arch
        and candidate.engine in emulator.engines
        and not (emulator.is_narrow and is_alike)
    ]


def emulate_candidate(
    built: Built, emulator: Emulator, here: Asked, bench: Bench, told: Callable[[int, int], None]
) -> Asked:
    """What a candidate answers on another instruction set.

    Args:
        built: what was compiled.
        emulator: where it answers.
        here: what it answered on this machine.
        bench: what it is measured with.
        told: how many of how many questions are answered, after each.

    Raises:
        InferenceError: the emulated engine did not come up, or failed.
    """
    order = bench.order
    folder = bench.workshop().folder / f"{built.candidate.id}-{emulator.arch}"
    with closing(open_built(order.material.draft, built, arithmetic_of(built, bench).options)) as predictor:
        return ask_elsewhere(emulator, built, Here(predictor, here), order, folder, told=told)
