"""Everything a build reads, and what the source model says: read once, checked once, before any candidate exists."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from converters.building.workshop import open_source
from converters.data.data_ranges import range_notes
from converters.data.datasets import Dataset, read_labels
from converters.data.sets import open_sets, rehearse_sets
from converters.errors import BadDataset, BadModel, BadRecipe, GoldenRefused
from converters.evaluation import golden
from converters.evaluation.evaluate import Examination, ask_source, interpreter_of
from converters.evaluation.metrics.choose import Task, task_of
from converters.evaluation.metrics.metric import Score
from converters.model.source import Imported
from converters.planning.answers import check_answers, unlabelled
from converters.planning.judge import describe_check
from converters.planning.planner import Plan
from converters.planning.recipe import Recipe
from converters.preflight.findings import Finding, stops
from converters.preflight.inspect import inspect
from converters.reading import read_source
from converters.release.draft import Draft, draft_release
from converters.release.layers import layers_of, read_priors
from edge_runtime.contract.digest import Digest, digest_of_file
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import LayerName
from edge_runtime.contract.release import Calibration, GoldenSpec, ReferenceScore, Waiver, reference_to
from edge_runtime.inference.arrays import read_npy
from edge_runtime.inference.checks.golden import GoldenSet
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.preprocess import Preprocessor, compile_preprocess

_OF_BRANCHES: Final = frozenset({"control_flow", "nothing_to_quantise"})
"""Findings that may be about branches which are never taken."""


@dataclass(frozen=True, slots=True)
class Material:
    """A recipe's model and data, read and described."""

    draft: Draft
    model: Any
    """ONNX model without initialisers among its inputs, or the bytes of a TFLite file."""
    evaluation: Dataset
    calibration: Dataset | None
    labels: Mapping[str, tuple[str, ...]]
    """By public output."""
    layers: Mapping[LayerName, bytes]
    """Files that travel with the release: label lists, priors."""
    preprocessor: Preprocessor
    task: Task
    notes: tuple[str, ...]
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Why preflight refuses the model for a target family, by family; its plain CPU variants are built all the same."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A model and what describes it, before any example is read."""

    imported: Imported
    findings: tuple[Finding, ...]
    labels: Mapping[str, tuple[str, ...]]
    """By public output."""
    priors: Mapping[LayerName, bytes]
    digest: Digest
    """Of the model's file."""

    def draft(self, recipe: Recipe, *, is_labelled: bool) -> Draft:
        """The release that the recipe promises. Raises: BadModel, BadRecipe."""
        draft = draft_release(recipe, self.imported, self.digest, is_labelled=is_labelled)
        arrays = {reference_to(title): read_npy(content, title) for title, content in self.priors.items()}
        return replace(draft, priors=arrays)


@dataclass(frozen=True, slots=True)
class Reference:
    """What the source model says."""

    golden: GoldenSet
    spec: GoldenSpec
    examination: Examination
    """The evaluation set with the source model's answers to it."""
    score: ReferenceScore | None
    waivers: tuple[Waiver, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """What is built, from what, judged by what."""

    recipe: Recipe
    plan: Plan
    material: Material
    reference: Reference


def read_material(recipe: Recipe, base: Path, plan: Plan) -> Material:
    """Look at the model, read it, list the data.

    Args:
        recipe: what to build.
        base: folder that its paths are relative to.
        plan: for the newest versions that targets load.

    Raises:
        BadModel: preflight found an error; all of them are in the message.
        BadDataset: a folder or label list cannot be used.
        BadRecipe: recipe and model contradict each other.
    """
    seen = look(recipe, base, plan)
    imported, model = seen.imported, seen.imported.model
    if imported.ir is not None:
        # The reference is the model as it came; only its version is lowered, or today's exporters would be refused.
        model.ir_version = min(imported.ir, plan.ceiling.ir)
    own = seen.labels.get(next(iter(recipe.outputs)))
    sets = open_sets(recipe, base, own)
    draft = seen.draft(recipe, is_labelled=sets.evaluation.is_labelled)
    if sets.calibration:
        draft = _with_calibration(draft, sets.calibration)
    preprocessor = _check_steps(draft, seen)
    ranges = range_notes(draft.manifest, preprocessor, sets.evaluation, sets.calibration)
    warnings = (_noted(one) for one in seen.findings if one.severity != "note" and not _is_answered(one, draft))
    families = {profile.family for profile in plan.profiles}
    return Material(
        draft=draft,
        model=model,
        evaluation=sets.evaluation,
        calibration=sets.calibration,
        labels=seen.labels,
        layers=layers_of(recipe, seen.labels, seen.priors),
        preprocessor=preprocessor,
        task=task_of(
            draft.manifest, metric=recipe.evaluation.metric, is_labelled=sets.evaluation.is_labelled, folder=base
        ),
        notes=(*warnings, *unlabelled(recipe.outputs), *sets.notes, *ranges),
        refusals={
            family: "; ".join(
                one.message for one in seen.findings if one.severity == "error" and family in one.families
            )
            for family in sorted(families)
            if stops(seen.findings, family)
        },
    )


def look(recipe: Recipe, base: Path, plan: Plan) -> Seen:
    """Look at the model and the files that describe it, and at no example.

    Raises:
        BadModel: preflight found an error; all of them are in the message.
        BadDataset: a label list cannot be used, or does not fit the model.
        BadRecipe: recipe and model contradict each other.
    """
    path = base / recipe.model
    families = tuple(sorted({profile.family for profile in plan.profiles}))
    findings = inspect(path, max_opset=plan.ceiling.opset, families=families, shapes=recipe.shapes)
    if all(stops(findings, family) for family in families):
        raise _refusal(path, findings)
    imported = read_source(path, recipe.shapes)
    labels = {name: read_labels(base / entry.labels) for name, entry in recipe.outputs.items() if entry.labels}
    check_answers(recipe.outputs, imported, labels)
    digest, _ = digest_of_file(path)
    return Seen(imported, findings, labels, read_priors(recipe, base), digest)


def rehearse(recipe: Recipe, base: Path, plan: Plan) -> tuple[str, ...]:
    """Refuse what a build would refuse before it reads an example; what it would note about the recipe comes back.

    Raises:
        EdgeError: as `look`, steps that cannot run, or limits that the evaluation set cannot be judged by.
    """
    seen = look(recipe, base, plan)
    _check_steps(seen.draft(recipe, is_labelled=False), seen)
    rehearse_sets(recipe, base, seen.labels.get(next(iter(recipe.outputs))))
    return tuple(unlabelled(recipe.outputs))


def _check_steps(draft: Draft, seen: Seen) -> Preprocessor:
    """What runs the steps: one that cannot is refused before any model is asked. Raises: EdgeError."""
    interpreter_of(draft.manifest, layers=draft.priors, labels=seen.labels)
    return compile_preprocess(draft.manifest)


def refer(material: Material, answers: Path, *, golden_from: Path | None, allow_failed: bool) -> Reference:
    """Ask the source model: golden set, evaluation set, and whether the labels of the golden set agree with it.

    Args:
        material: model and data.
        answers: file for its answers to the evaluation set.
        golden_from: release whose golden questions are asked again.
        allow_failed: whether the source model may contradict the labels.

    Raises:
        GoldenRefused: the source model contradicts the labels and nobody allowed that.
        BadDataset: a sample cannot be used, or the other release's golden set does not fit.
    """
    spec = material.draft.manifest.golden
    if spec is None:
        raise BadRecipe("build the golden set", "the recipe has none")
    output = material.draft.public_output().name
    with closing(open_source(material.draft, material.model)) as source:
        try:
            if golden_from is not None:
                questions = golden.ask_as(golden_from)
            else:
                taken = golden.reference_bytes(material.evaluation, source)
                questions = golden.ask_from(
                    material.evaluation, material.preprocessor, count=spec.count, output=output, reference_bytes=taken
                )
            asked = golden.answered(questions, source)
        except InferenceError as error:
            raise _unfit(material.draft, error) from error
        notes = _fewer(spec.count, len(asked.samples), material)
        spec = msgspec.structs.replace(spec, count=len(asked.samples))
        waivers = _judge_truth(source, asked, spec, allow_failed=allow_failed)
        examination = examine(material, answers)
        score = ask_source(source, examination)
    return Reference(asked, spec, examination, _reference_score(examination, score), waivers, notes)


def _unfit(draft: Draft, error: InferenceError) -> BadDataset:
    """What the recipe calls the tensor that does not fit, and which steps make it."""
    because, remedy = error.because, "its inputs must fit this model"
    for name, tensor in draft.inputs.items():
        steps = [str(step.get("op")) for step in draft.manifest.preprocess.get(name, [])]
        if steps and f"tensor {name} " in because:
            because = because.replace(f"tensor {name} ", f"tensor {tensor} ")
            because += f"; the recipe makes it by {', '.join(steps)}"
            remedy = "correct these steps, or give examples that fit this model"
    return BadDataset("ask the golden set", because, remedy)


def examine(material: Material, answers: Path) -> Examination:
    """The examination of a build, with the source model's answers to it in a file."""
    interpreter = interpreter_of(material.draft.manifest, layers=material.draft.priors, labels=material.labels)
    return Examination(material.evaluation, material.preprocessor, interpreter, material.task, answers)


def _fewer(wanted: int, taken: int, material: Material) -> tuple[str, ...]:
    if taken >= min(wanted, len(material.evaluation.samples)):
        return ()
    return (f"the golden set asks {taken} questions instead of {wanted}: with their answers more do not fit",)


def _judge_truth(source: Predictor, asked: GoldenSet, spec: GoldenSpec, *, allow_failed: bool) -> tuple[Waiver, ...]:
    failed = [check for check in golden.truth_results(source, asked, spec) if not check.passed]
    if not failed:
        return ()
    detail = "; ".join(describe_check(check) for check in failed)
    if not allow_failed:
        raise GoldenRefused(
            "build the release", f"the source model contradicts its golden set ({detail})",
            "check the model, its preprocessing and the order of the labels; --allow-failed-golden builds it anyway",
        )  # fmt: skip
    return (Waiver(check="golden", detail=f"the source model contradicts its golden set: {detail}"),)


def _reference_score(examination: Examination, score: Score | None) -> ReferenceScore | None:
    if score is None:
        return None
    return ReferenceScore(
        metric=score.metric,
        value=round(score.value, 6),
        count=score.count,
        evaluation=examination.dataset.digest(),
        ci95=[round(bound, 4) for bound in score.ci95] if score.ci95 else None,
    )


def _is_answered(finding: Finding, draft: Draft) -> bool:
    """Whether a warning asks for what the recipe's steps, states and constants tell already."""
    if finding.code in _OF_BRANCHES and draft.constants and draft.manifest.stream is not None:
        # Preflight sees the file as it came; branches that the constants settle are taken before anything is compiled.
        return finding.severity == "warning"
    if (finding.code, finding.severity) != ("dynamic_axes", "warning"):
        return False
    shapes = {tensor: draft.tensor(name).shape for name, tensor in draft.inputs.items()}
    return all(node in shapes and not set(map(str, shapes[node])) & _open_axes(draft) for node in finding.nodes)


def _open_axes(draft: Draft) -> set[str]:
    return set(draft.manifest.signature.axes) - {"N"}


def _noted(finding: Finding) -> str:
    """What the report says about a finding that did not stop the whole build."""
    lost = f"not for {', '.join(finding.families)}: " if finding.severity == "error" else ""
    return f"{lost}{finding.message}; {finding.advice}"


def _refusal(path: Path, findings: tuple[Finding, ...]) -> BadModel:
    errors = [finding for finding in findings if finding.severity == "error"]
    because = "; ".join(finding.message for finding in errors)
    advice = "; ".join(dict.fromkeys(finding.advice for finding in errors if finding.advice))
    return BadModel(f"use {path.name}", because, advice)


def _with_calibration(draft: Draft, dataset: Dataset) -> Draft:
    calibration = Calibration(digest=dataset.digest(), count=len(dataset.samples), name=dataset.root.resolve().name)
    manifest = msgspec.structs.replace(draft.manifest, calibration=calibration)
    return replace(draft, manifest=manifest)
