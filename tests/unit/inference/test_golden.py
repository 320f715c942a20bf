"""The golden set: what is packed comes back, what is hostile does not get in, what is wrong does not pass."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.golden import Truth, write_golden
from edge_runtime.contract.release import GoldenCheck, GoldenSpec
from edge_runtime.inference.arrays import read_npy, read_npz, write_npy, write_npz
from edge_runtime.inference.checks.golden import load_own, pack_golden, pack_own, run_golden, unpack_golden
from edge_runtime.inference.postprocessing.results import Classes

IMAGES = [np.full((2, 2, 1), value, np.uint8) for value in (1, 2)]
LOGITS = [np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)]
PACKED = pack_golden(
    [{"image": image} for image in IMAGES], [{"y": one} for one in LOGITS], Truth(labels={"out": [0, 1]})
)


class Subject:
    """Answers golden sample k with its float reference, changed by `distort`."""

    def __init__(self, distort=lambda logits: logits) -> None:
        self.distort = distort

    def run_decoded(self, decoded):
        return {"y": self.distort(LOGITS[int(decoded["image"].flat[0]) - 1])}

    def interpret(self, tensors, decoded=None):
        best = int(np.argmax(tensors["y"]))
        return [{"out": Classes((best,), (str(best),), (1.0,))}]


def check(against="float", metric="snr_db", on="y", **bounds) -> GoldenCheck:
    return GoldenCheck(against=against, metric=metric, on=on, **bounds)


def judged(subject, *checks, own=None, count=2):
    spec = GoldenSpec(layer="layer:golden.tar", count=count, contains_personal_data=False, checks=list(checks))
    return run_golden(subject, unpack_golden(PACKED), spec, own)


def test_what_is_packed_comes_back_and_packs_to_the_same_bytes() -> None:
    golden = unpack_golden(PACKED)

    assert [sample.inputs["image"].tolist() for sample in golden.samples] == [image.tolist() for image in IMAGES]
    again = pack_golden(
        [sample.inputs for sample in golden.samples], [sample.float_outputs for sample in golden.samples], golden.truth
    )
    assert again == PACKED


def test_own_outputs_come_back_and_pack_to_the_same_bytes() -> None:
    packed = pack_own([{"y": one} for one in LOGITS])

    assert [one["y"].tolist() for one in load_own(packed)] == [one.tolist() for one in LOGITS]
    assert pack_own(load_own(packed)) == packed


def test_own_outputs_written_by_numpy_itself_are_read() -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{"0/y": LOGITS[0]})

    assert load_own(buffer.getvalue())[0]["y"].tolist() == LOGITS[0].tolist()


def test_a_faithful_variant_passes_with_the_numbers_that_decided() -> None:
    results = judged(
        Subject(), check(min=15.0), check("truth", "top1", None, min=1.0), check(metric="max_abs", max=0.0)
    )

    assert [(one.passed, one.value) for one in results] == [(True, 200.0), (True, 1.0), (True, 0.0)]


def test_a_variant_that_answers_not_a_number_fails_and_says_no_value() -> None:
    (result,) = judged(Subject(lambda logits: logits * np.nan), check(min=-1e9))

    assert (result.passed, result.value) == (False, None)


def test_a_variant_that_swaps_classes_fails_truth() -> None:
    (result,) = judged(Subject(lambda logits: logits[:, ::-1]), check("truth", "top1", None, min=0.5))

    assert (result.passed, result.value) == (False, 0.0)


def test_own_is_judged_by_the_variants_own_outputs_and_by_float_when_there_are_none() -> None:
    tenth = Subject(lambda logits: logits * 1.1)

    (without,) = judged(tenth, check("own", min=30.0))
    (with_own,) = judged(tenth, check("own", min=30.0), own=[{"y": one * 1.1} for one in LOGITS])

    assert (without.passed, with_own.passed) == (False, True)


def test_fewer_questions_than_promised_are_no_examination() -> None:
    with pytest.raises(ContractError, match="promises 3 samples and holds 2"):
        judged(Subject(), check(min=1.0), count=3)
    with pytest.raises(ContractError, match="promises 2 samples"):
        judged(Subject(), check(min=1.0), own=[{"y": LOGITS[0]}])


def test_a_check_that_could_never_fail_is_refused() -> None:
    with pytest.raises(ContractError, match="could never fail"):
        judged(Subject(), check())


def test_an_answer_of_another_shape_fails_the_golden_set_by_name() -> None:
    with pytest.raises(InferenceError, match=r"answers y with shape \[2, 1\]") as caught:
        judged(Subject(lambda logits: logits.T), check(min=1.0))

    assert caught.value.code == "golden_failed"


def test_a_metric_nobody_knows_is_not_skipped() -> None:
    with pytest.raises(UnsupportedFeature, match="word_error_rate"):
        judged(Subject(), check(metric="word_error_rate", on=None, min=0.5))
    with pytest.raises(UnsupportedFeature, match="vibes"):
        judged(Subject(), check(metric="vibes", min=0.5))


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"inputs/0/image.npy": write_npy(IMAGES[0])},
        {"inputs/1/image.npy": write_npy(IMAGES[0]), "float/1/y.npy": write_npy(LOGITS[0])},
        {
            "inputs/0/image.npy": write_npy(IMAGES[0]),
            "float/0/y.npy": write_npy(LOGITS[0]),
            "truth.json": b'{"labels":{"out":[1,2]}}',
        },
    ],
)
def test_a_golden_set_with_gaps_is_refused(members) -> None:
    with pytest.raises(ContractError, match="cannot read the golden set"):
        unpack_golden(write_golden(members))


def test_an_array_that_claims_more_than_its_bytes_costs_no_memory() -> None:
    huge = write_npy(np.zeros(8, np.uint8)).replace(b"(8,)", b"(9999999999999,)")

    with pytest.raises(ContractError, match=r"does not match its \d+ bytes"):
        read_npy(huge, "a")


def test_pickled_objects_are_never_loaded() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(ContractError, match="not numbers"):
        read_npy(buffer.getvalue(), "a")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00", b"x" * 200])
def test_what_is_no_array_is_one_clear_error(content: bytes) -> None:
    with pytest.raises(ContractError, match=r"no \.npy file"):
        read_npy(content, "a")


def test_fortran_order_and_scalars_are_read() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.asfortranarray(np.arange(6).reshape(2, 3)))

    assert read_npy(buffer.getvalue(), "a").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_npy(write_npy(np.array(5)), "a") == 5


def test_a_zip_bomb_is_refused_before_it_unfolds() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0/y.npy", bytes(80 * 1024 * 1024))

    with pytest.raises(ContractError, match="unfolds to more than"):
        read_npz(buffer.getvalue(), "own.npz")


@pytest.mark.parametrize("key", ["y", "x/y", "1/y"])
def test_own_outputs_that_name_no_sample_are_refused(key: str) -> None:
    with pytest.raises(ContractError, match="cannot read own"):
        load_own(write_npz({key: LOGITS[0]}))


def test_what_is_no_zip_is_one_clear_error() -> None:
    with pytest.raises(ContractError, match=r"no \.npz archive"):
        load_own(b"junk")


def npy_with(header: str, body: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def shaped(shape: str) -> str:
    return f"{{'descr':'<f4','fortran_order':False,'shape':{shape}}}\n"


@pytest.mark.parametrize(
    "content",
    [
        npy_with("{'descr': (\n"),
        npy_with("-" * 9000 + "1"),
        npy_with("(" * 5000),
        npy_with(shaped("(" + "1," * 100 + ")"), bytes(4)),
        npy_with(shaped(f"(0,{2**70})")),
        npy_with(shaped(f"(0,{2**61},{2**61})")),
        npy_with(shaped("(0,0x1" + "0" * 5000 + ")")),
        npy_with(shaped("(True,)"), bytes(4)),
        npy_with(shaped("(-1,-1)"), bytes(4)),
    ],
)
def test_a_hostile_header_is_one_clear_error(content: bytes) -> None:
    with pytest.raises(ContractError, match=r"no \.npy file"):
        read_npy(content, "a")


def test_an_archive_packed_as_numpy_never_packs_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("0/y.npy", write_npy(LOGITS[0]))

    with pytest.raises(ContractError, match="packed in a way that numpy does not write"):
        read_npz(buffer.getvalue(), "own.npz")


@pytest.mark.parametrize("place", range(0, 200, 3))
def test_a_damaged_archive_is_read_as_it_was_or_refused(place: int) -> None:
    whole = bytearray(write_npz({"0/y": LOGITS[0]}))
    whole[place % len(whole)] ^= 0xFF

    try:
        arrays = read_npz(bytes(whole), "own.npz")
    except ContractError:
        return
    assert all(array.tolist() == LOGITS[0].tolist() for array in arrays.values())


def test_a_member_that_unfolds_into_more_than_it_says_takes_no_memory() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0/y.npy", bytes(64 * 1024 * 1024))
    liar = buffer.getvalue().replace(struct.pack("<I", 64 * 1024 * 1024), struct.pack("<I", 100))

    tracemalloc.start()
    with pytest.raises(ContractError, match=r"no \.np. "):
        read_npz(liar, "own.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4 * 1024 * 1024
