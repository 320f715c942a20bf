"""What edgetpu_compiler prints becomes numbers and reasons, in all the ways it has been seen to end."""

from __future__ import annotations

import pytest

from converters.compilers.edgetpu import MAPPED, Placement, parse_log
from converters.errors import CompileFailed

HEAD = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1524 ms.

Input model: model.tflite
Input size: 3.82MiB
Output model: model_edgetpu.tflite
Output size: 4.10MiB
On-chip memory used for caching model parameters: 3.75MiB
On-chip memory remaining for caching model parameters: 3.16MiB
Off-chip memory used for streaming uncached model parameters: {off_chip}
Number of Edge TPU subgraphs: 1
Total number of operations: 71
Operation log: model_edgetpu.log
"""
PARTLY = """
Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will instead
run on the CPU, which is slower.
Number of operations that will run on Edge TPU: 66
Number of operations that will run on CPU: 5
"""
TAIL = "Compilation child process completed within timeout period.\nCompilation succeeded! \n"
DYNAMIC = (
    "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has "
    "dynamic-sized tensors.\nCompilation failed!\n"
)
UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
STATUSES = (
    MAPPED,
    "More than one subgraph is not supported",
    UNSPECIFIED,
    "Operation is working on an unsupported data type",
    "Operation not supported",
    "Filter, bias, or other param is not constant at compile-time",
    "Tensor has unsupported rank (up to 3 innermost dimensions mapped)",
)


def table(*rows: tuple[str, int, str]) -> str:
    lines = [f"{kind:<31}{count:<11}{status}" for kind, count, status in rows]
    return "\n".join(["", f"{'Operator':<31}{'Count':<11}Status", "", *lines, ""])


def test_a_model_that_is_mapped_whole() -> None:
    rows = (("CONV_2D", 35, MAPPED), ("DEPTHWISE_CONV_2D", 17, MAPPED), ("PAD", 19, MAPPED))

    log = parse_log(HEAD.format(off_chip="0.00B") + table(*rows) + TAIL)

    assert (log.version, log.mapped, log.unmapped) == ("16.0.384591198", 71, 0)
    assert (log.on_chip_bytes, log.off_chip_bytes) == (int(3.75 * 1024**2), 0)
    assert log.placements == tuple(Placement(*row) for row in rows)
    assert log.left_out == ()


def test_a_model_that_is_mapped_in_part_says_what_stays_on_the_cpu_and_why() -> None:
    rows = (("CONV_2D", 66, MAPPED), ("RESIZE_BILINEAR", 2, UNSPECIFIED), ("edgetpu-custom-op", 3, STATUSES[4]))

    log = parse_log(HEAD.format(off_chip="41.75KiB") + PARTLY + table(*rows) + TAIL)

    assert (log.mapped, log.unmapped) == (66, 5)
    assert log.off_chip_bytes == round(41.75 * 1024)
    assert [one.kind for one in log.left_out] == ["RESIZE_BILINEAR", "edgetpu-custom-op"]


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_that_people_have_quoted_is_read_whole(status: str) -> None:
    log = parse_log(HEAD.format(off_chip="0.00B") + table(("LOGISTIC", 1, status)) + TAIL)

    assert log.placements == (Placement("LOGISTIC", 1, status),)


def test_without_the_table_the_counts_are_still_there() -> None:
    log = parse_log(HEAD.format(off_chip="0.00B") + PARTLY + "See the operation log file for individual details.\n")

    assert (log.mapped, log.unmapped, log.placements) == (66, 5, ())


@pytest.mark.parametrize(
    ("said", "because", "remedy"),
    [
        ("Invalid model: m.tflite\nModel not quantized\n", "Model not quantized", "quantise inputs, outputs"),
        ("Internal compiler error. Aborting!\n", "Internal compiler error", "compile with -n 2"),
        (DYNAMIC, "static-sized tensors", "fix every size"),
        ("loc: no_integer_overflow_from_quantization was not true.\n", "no_integer_overflow", "more examples"),
        ("ERROR: Didn't find op for builtin opcode 'RELU' version '2'\n", "opcode 'RELU' version '2'", "convert again"),
        ("Compilation failed: Compilation failed due to large activation tensors in model.\n", "large activation",
         "input smaller"),
        ("Invalid model: m.tflite\n", "Invalid model", "edge-convert check"),
        ("Compilation failed for a reason nobody has quoted yet\n", "nobody has quoted yet", ""),
        ("", "it said nothing", ""),
    ],
)  # fmt: skip
def test_what_ends_a_compilation_is_its_own_words_and_what_to_do(said: str, because: str, remedy: str) -> None:
    with pytest.raises(CompileFailed) as refused:
        parse_log(f"Edge TPU Compiler version 16.0.384591198\n{said}" if said else said)

    assert because in refused.value.because
    assert remedy in refused.value.remedy
    assert "\n" not in str(refused.value)
