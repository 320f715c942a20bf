"""What the result of each stage of a build depends on, and on nothing else; pure.

Names, limits and paths are not among it: a release with another version or a tighter budget is judged anew from numbers
that stand already.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import msgspec

from converters.caching.stages import Environment, Stage, digest_value, key_of
from converters.evaluation.emulation import Emulator
from converters.evaluation.metrics.choose import Task
from converters.pipeline.material import Material, Order
from converters.planning.planner import Candidate
from edge_runtime.contract.digest import Digest, digest_of, digest_of_file


@dataclass(frozen=True, slots=True)
class Facts:
    """The stages of one build, each with what it depends on."""

    order: Order
    environment: Environment
    model: Digest
    source: Stage
    """The stage that asked the source model: its key stands for questions, labels and answers."""

    def compile_stage(self, candidate: Candidate) -> Stage:
        """Compiling a candidate, and its answers to the golden set in float emulation."""
        material = self.order.material
        calibration = material.draft.manifest.calibration
        asked = [sample.inputs for sample in self.order.reference.golden.samples]
        return Stage(
            "compile",
            candidate.id,
            {
                "model": self.model,
                "candidate": msgspec.to_builtins(candidate),
                "inputs": msgspec.to_builtins(self.order.recipe.inputs),
                "promises": _promises(material),
                "calibration": calibration.digest if calibration else None,
                "asked": digest_value(asked),
                "ceiling": msgspec.to_builtins(self.order.plan.ceiling),
            },
        )

    def measure_stage(self, candidate: Candidate, beside: Candidate | None) -> Stage:
        """Measuring a compiled candidate, in turn with the float variant of its engine."""
        return Stage(
            "measure",
            candidate.id,
            {
                "built": self._key(self.compile_stage(candidate)),
                "beside": self._key(self.compile_stage(beside)) if beside else None,
                "source": self._key(self.source),
                # The samples that differ most are kept with what both said, in words.
                "labels": msgspec.to_builtins(self.order.material.labels),
                # Which kernels count depends on whose they are.
                "profiles": msgspec.to_builtins(self.order.plan.profiles),
            },
        )

    def emulate_stage(self, candidate: Candidate, emulator: Emulator) -> Stage:
        """Asking a compiled candidate on another instruction set."""
        return Stage(
            "emulate",
            f"{candidate.id} on {emulator.kernels}",
            {
                "built": self._key(self.compile_stage(candidate)),
                "source": self._key(self.source),
                "emulator": [emulator.arch, emulator.kernels, emulator.installed],
                "profiles": msgspec.to_builtins(self.order.plan.profiles),
            },
        )

    def layers_stage(self, candidate: Candidate, *, undo: bool) -> Stage:
        """Looking for the layers that a compiled candidate loses in."""
        built = self._key(self.compile_stage(candidate))
        return Stage("layers", candidate.id, {"built": built, "undo": undo})

    def pictures_stage(self, positions: list[int]) -> Stage:
        """Small pictures of samples for the report."""
        material = self.order.material
        inputs = {"evaluation": material.evaluation.digest(), "promises": _promises(material), "positions": positions}
        return Stage("pictures", material.evaluation.root.name, inputs, is_machine_bound=False)

    def _key(self, stage: Stage) -> str:
        return key_of(stage, self.environment)


def model_digest(material: Material) -> Digest:
    """Of the model as every stage starts from it, weights outside the file included."""
    model = material.model
    return digest_of(model if isinstance(model, bytes) else model.SerializeToString(deterministic=True))


def source_stage(material: Material, model: Digest, *, golden_from: Digest | None, allow_failed: bool) -> Stage:
    """Asking the source model: golden set, evaluation set."""
    return Stage(
        "source",
        material.evaluation.root.name,
        {
            "model": model,
            "promises": _promises(material),
            "evaluation": material.evaluation.digest(),
            "allows_nan": material.evaluation.allows_nan,
            "golden": msgspec.to_builtins(material.draft.manifest.golden),
            "golden_from": golden_from,
            "allow_failed": allow_failed,
            "task": _task(material.task),
        },
    )


def calibration_stage(material: Material) -> Stage:
    """Preparing the calibration examples as the model takes them."""
    calibration = material.draft.manifest.calibration
    name = (calibration.name if calibration else None) or ""
    data = calibration.digest if calibration else None
    inputs: dict[str, object] = {"data": data, "promises": _promises(material)}
    if material.draft.manifest.stream is not None:
        # The states that examples come with are the source model's.
        inputs["model"] = model_digest(material)
    return Stage("calibration", name, inputs)


def _task(task: Task) -> dict[str, object]:
    """What is judged and how; of the engineer's own metric every module beside it, because it may import them."""
    names = [field.name for field in fields(task) if field.name != "folder"]
    said: dict[str, object] = {name: getattr(task, name) for name in names}
    if task.metric is not None and ":" in task.metric:
        said["code"] = {path.name: digest_of_file(path)[0] for path in sorted(task.folder.glob("*.py"))}
    return said


def _promises(material: Material) -> dict[str, object]:
    """The parts of the manifest and draft that numbers depend on."""
    draft, manifest = material.draft, material.draft.manifest
    parts = {
        "task": manifest.task,
        "signature": manifest.signature,
        "tensors": manifest.tensors,
        "preprocess": manifest.preprocess,
        "postprocess": manifest.postprocess,
        "states": manifest.states,
        "stream": manifest.stream,
        "inputs": dict(draft.inputs),
        "outputs": dict(draft.outputs),
        "batch": draft.batch,
        "priors": digest_value(dict(draft.priors)),
    }
    return {name: msgspec.to_builtins(part) for name, part in parts.items()}
