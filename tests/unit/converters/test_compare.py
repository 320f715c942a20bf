"""What changed between two releases, told from their manifests and evidence alone."""

import io

import msgspec
import pytest
from rich.console import Console

from converters.commands.compare import as_json, cells, print_comparison, write_page
from converters.report.compare import Comparison, Side, compare
from edge_runtime.contract.digest import Digest, digest_of
from edge_runtime.contract.evidence import Accuracy, By, Evidence, EvidenceFile, Latency, Where
from edge_runtime.contract.release import ReferenceScore, ReleaseManifest, VariantManifest, Waiver
from tests.fakes import documents

HERE = Where(arch="x86_64", isa=["avx2"], cpu="EPYC", execution="native", engine="onnxruntime 1.32.0")
EVIL = "<script>alert(1)</script>"


def manifest(**changes: object) -> ReleaseManifest:
    return msgspec.structs.replace(documents.release_manifest(), **{"waivers": [], **changes})


def evidence(p50: float, value: float, where: Where = HERE) -> Evidence:
    return Evidence(
        variant=Digest("sha256:1"), release=None, at="2026-01-01T00:00:00Z", by=By(kind="build"), where=where,
        verdict="shipped", accuracy=Accuracy(metric="top1", value=value, count=60), size_bytes=100,
        latency_ms=Latency(p50=p50, p95=p50),
    )  # fmt: skip


def side(names: dict[str, bytes], where: Where = HERE, p50: float = 1.0, **changes: object) -> Side:
    variants: dict[str, tuple[Digest, VariantManifest]] = {
        name: (digest_of(content), documents.variant_manifest()) for name, content in names.items()
    }
    file = EvidenceFile(variants={name: evidence(p50, 0.9, where) for name in names})
    return Side(digest_of(repr((names, changes)).encode()), manifest(**changes), variants, file)


def changes_of(found: Comparison) -> dict[str, str]:
    return {one.variant: one.change for one in found.variants}


def test_variants_are_added_removed_changed_or_the_same_bytes() -> None:
    found = compare(side({"a": b"1", "b": b"1", "c": b"1"}), side({"b": b"1", "c": b"2", "d": b"1"}))

    assert changes_of(found) == {"a": "removed", "b": "same", "c": "changed", "d": "added"}


def test_a_release_compared_with_itself_has_changed_in_nothing() -> None:
    one = side({"a": b"1"})

    found = compare(one, one)

    assert found.is_same
    assert (found.promises, found.waivers_added, found.notes) == ([], [], [])


def test_a_changed_step_is_named_by_its_place_with_both_values() -> None:
    old = manifest()
    steps = {
        name: [{**step, "mean": [1.0]} if step["op"] == "normalize" else step for step in chain]
        for name, chain in old.preprocess.items()
    }

    found = compare(side({}), side({}, preprocess=steps))

    (change,) = found.promises
    assert change.path.startswith("preprocess.")
    assert "mean" in change.path
    assert change.after == "1.0" or "1.0" in change.after


def test_another_version_alone_is_no_broken_promise() -> None:
    found = compare(side({"a": b"1"}), side({"a": b"1"}, version="9.9.9"))

    assert found.promises == []
    assert found.after == "9.9.9"


def test_a_defence_that_was_switched_off_since_is_said() -> None:
    waiver = Waiver(check="accuracy_gate", detail="switched off")

    found, back = compare(side({}), side({}, waivers=[waiver])), compare(side({}, waivers=[waiver]), side({}))

    assert (found.waivers_added, found.waivers_gone) == ([waiver], [])
    assert (back.waivers_added, back.waivers_gone) == ([], [waiver])


def test_latencies_of_two_machines_are_shown_and_not_compared() -> None:
    other = msgspec.structs.replace(HERE, cpu="Cortex-A76", arch="aarch64")

    found = compare(side({"a": b"1"}), side({"a": b"2"}, where=other, p50=9.0))

    (one,) = found.variants
    assert not one.is_same_machine
    assert "other machine" in cells(one)[-1]
    assert any("two machines" in note for note in found.notes)


def test_scores_of_two_evaluation_sets_are_to_be_read_with_care() -> None:
    first = ReferenceScore(metric="top1", value=0.9, count=10, evaluation=Digest("sha256:a"))
    second = msgspec.structs.replace(first, evaluation=Digest("sha256:b"))

    found = compare(side({}, reference=first), side({}, reference=second))

    assert any("two different evaluation sets" in note for note in found.notes)


def test_the_json_holds_everything_and_the_page_escapes_what_it_shows(tmp_path) -> None:
    waiver = Waiver(check=EVIL, detail=EVIL)
    found = compare(side({"a": b"1"}), side({"a": b"2"}, waivers=[waiver], task=EVIL))

    write_page(found, tmp_path / "page.html")

    page = (tmp_path / "page.html").read_text()
    assert msgspec.json.decode(as_json(found), type=Comparison) == found
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("missing", ["before", "after"])
def test_a_release_without_evidence_is_compared_by_what_it_has(missing: str) -> None:
    bare, whole = side({"a": b"1"}), side({"a": b"2"})
    bare = Side(bare.digest, bare.manifest, bare.variants, None)

    found = compare(bare, whole) if missing == "before" else compare(whole, bare)

    assert changes_of(found) == {"a": "changed"}


def test_values_are_told_in_words_and_never_in_json() -> None:
    old = manifest()

    found = compare(side({}), side({}, calibration=None, limits=msgspec.structs.replace(old.limits, max_drop={})))

    told = {change.path: (change.before, change.after) for change in found.promises}
    (before, after) = told["calibration"]
    assert after == "–"
    assert before.startswith("digest sha256:")
    assert not set("{}\"'") & set("".join(text for pair in told.values() for text in pair))
    assert f"same model, and only {old.version} was calibrated" in found.notes


def test_letters_that_steer_a_terminal_are_not_told() -> None:
    licence = msgspec.structs.replace(manifest().licence, spdx="MIT\x1b[31m" + "x" * 500)

    (change,) = compare(side({}), side({}, licence=licence)).promises

    assert "\x1b" not in change.after
    assert len(change.after) <= 160


def test_two_models_are_both_named_in_the_heading() -> None:
    same = compare(side({}), side({}, version="2.0.0"))
    other = compare(side({}), side({}, name="faces"))

    assert same.title == f"{manifest().name}: {manifest().version} → 2.0.0"
    assert other.title == f"{manifest().name} {manifest().version} → faces {manifest().version}"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_cell_of_the_table_is_broken_but_between_before_and_after(width: int) -> None:
    slow = msgspec.structs.replace(HERE, cpu="other")
    found = compare(
        side({"openvino-float16-weights": b"1", "ort-int8-percentile": b"2"}, p50=100.123),
        side({"openvino-float16-weights": b"2"}, slow, p50=234.456),
    )
    console = Console(width=width, file=io.StringIO())

    print_comparison(found, console)

    shown = console.file.getvalue()
    lines = shown.splitlines()
    assert all(len(line) <= width for line in lines if not line.startswith("note: "))
    for whole in ("openvino-float16-weights", "ort-int8-percentile", "removed"):
        assert whole in shown
    assert all(f"{heading}: left out" in shown or heading in lines[1] for heading in ("variant", "change", "accuracy"))
    assert ("100.123 ms" in shown) != ("p50: left out" in shown)
