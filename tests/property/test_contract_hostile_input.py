"""Whatever arrives, the contract's readers answer with a document or a ContractError, and nothing else."""

import contextlib
import math
import tarfile

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_runtime.contract import ids, topics
from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.golden import read_golden, write_golden
from edge_runtime.contract.layout import parse_release_index
from edge_runtime.contract.release import read_release, read_variant
from edge_runtime.contract.sketch import RELATIVE_ERROR, Sketch, SketchData
from edge_runtime.contract.steps import parse_postprocess, parse_preprocess
from edge_runtime.contract.telemetry import read_batch
from tests.fakes.documents import batch, documents, release_manifest, variant_manifest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
READERS = [read_release, read_variant, read_batch, parse_release_index, read_golden]


@pytest.mark.parametrize("reader", READERS)
@given(content=st.binary(max_size=300))
@example(content=b"[" * 100_000)
@example(content=b'{"schema":' * 5_000)
@example(content=b"\xff\xfe\x00")
@example(content=b"")
def test_random_bytes_are_refused_by_every_reader(reader, content: bytes) -> None:
    with pytest.raises(ContractError):
        reader(content)


@pytest.mark.parametrize("name", sorted(documents()))
@given(data=st.data())
def test_a_document_with_one_field_replaced_is_read_or_refused(name: str, data: st.DataObject) -> None:
    document = documents()[name]
    fields = msgspec.json.decode(encode(document))
    field = data.draw(st.sampled_from(sorted(fields)))
    fields[field] = data.draw(json_values)
    try:
        content = msgspec.json.encode(fields)
    except UnicodeEncodeError:
        return

    with contextlib.suppress(ContractError):
        assert isinstance(decode(content, type(document)), type(document))


@given(data=st.data())
def test_a_manifest_cut_anywhere_is_refused(data: st.DataObject) -> None:
    whole = encode(data.draw(st.sampled_from([release_manifest(), variant_manifest()])))
    cut = data.draw(st.integers(0, len(whole) - 1))

    with pytest.raises(ContractError):
        read_release(whole[:cut])


@given(step=st.dictionaries(st.text(max_size=8), json_values, max_size=4))
@example(step={"op": "resize"})
@example(step={"op": ["resize"]})
def test_a_step_is_typed_or_refused(step: dict[str, object]) -> None:
    for parse in (parse_preprocess, parse_postprocess):
        with pytest.raises(ContractError):
            parse([step])


@given(text=st.text(max_size=80))
@example(text="a\n")
@example(text="a" * 64)
@example(text="")
def test_an_accepted_id_is_safe_in_a_topic_a_path_and_a_certificate(text: str) -> None:
    try:
        device = ids.parse_device_id(text)
    except ContractError:
        return

    assert 1 <= len(device) <= 63
    assert not set(device) - set("abcdefghijklmnopqrstuvwxyz0123456789-")


@given(text=st.text(max_size=120))
@example(text="..")
@example(text=".")
def test_an_accepted_layer_name_stays_inside_its_folder(text: str) -> None:
    try:
        name = ids.parse_layer_name(text)
    except ContractError:
        return

    assert "/" not in name
    assert name not in {".", "..", ""}


@given(text=st.text(max_size=60) | st.from_regex(r"ef/v1/[a-z+#/]{0,20}/up/[a-z/+#]{0,20}"))
def test_a_topic_that_parses_builds_again_to_the_same_topic(text: str) -> None:
    try:
        topic = topics.parse_up(text)
    except ContractError:
        return

    if topic.kind == topics.REPORTED:
        assert topics.reported(topic.device, ids.SlotId(topic.name or "")) == text
    elif topic.kind == topics.COMMAND:
        assert topics.command_result(topic.device, topic.name or "") == text
    else:
        assert topics.up(topic.device, topic.kind) == text


@given(members=st.dictionaries(st.from_regex(r"\A(inputs|float)/[0-9]{1,3}/[a-z]{1,5}\.npy\Z"), st.binary(max_size=50)))
def test_a_golden_set_unpacks_as_it_was_packed(members: dict[str, bytes]) -> None:
    members = {name: content for name, content in members.items() if name.split("/")[1] == str(int(name.split("/")[1]))}

    assert read_golden(write_golden(members)) == members


@pytest.mark.parametrize("name", ["../evil.npy", "/etc/passwd", "inputs/00/a.npy", "inputs/0/../a.npy", "truth.json\n"])
def test_a_golden_member_outside_the_agreed_names_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match="no place for it"):
        write_golden({name: b""})


@given(values=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200), q=st.floats(0, 1))
def test_a_quantile_is_within_the_promised_relative_error(values: list[float], q: float) -> None:
    sketch = Sketch()
    for value in values:
        sketch.add(value)

    exact = sorted(values)[math.floor(q * (len(values) - 1))]
    answer = sketch.quantile(q)

    assert answer is not None
    assert abs(answer - exact) <= exact * RELATIVE_ERROR * 1.000001


@given(parts=st.lists(st.lists(st.floats(0, 1e6), max_size=30), min_size=2, max_size=4))
def test_merging_sketches_equals_one_sketch_over_all_values(parts: list[list[float]]) -> None:
    whole, total = Sketch(), Sketch()
    for part in parts:
        piece = Sketch()
        for value in part:
            piece.add(value)
            whole.add(value)
        total.merge(Sketch.from_data(piece.to_data()))

    assert total.to_data().buckets == whole.to_data().buckets
    assert total.count == whole.count


@given(buckets=st.dictionaries(st.text(max_size=8) | st.integers().map(str), st.integers(), max_size=5))
def test_a_hostile_sketch_is_read_or_refused_and_never_answers_nonsense(buckets: dict[str, int]) -> None:
    try:
        sketch = Sketch.from_data(SketchData(buckets=buckets))
    except ContractError:
        return

    median = sketch.quantile(0.5)
    assert median is None or math.isfinite(median)


@given(first_seq=st.integers(-5, 2**60), count=st.integers(-3, 5))
def test_a_batch_whose_borders_contradict_its_samples_is_refused(first_seq: int, count: int) -> None:
    changed = msgspec.structs.replace(batch(count=2), first_seq=first_seq, count=count)
    try:
        read = read_batch(encode(changed))
    except ContractError:
        return

    assert read.count == len(read.samples) == 2
    assert 0 <= read.first_seq <= 2**53


def sparse(realsize: int, number: int) -> bytes:
    """A GNU sparse member's header that promises `realsize` bytes of zeros (GNU tar manual, "Old GNU Format")."""
    info = tarfile.TarInfo(f"inputs/{number}/x.npy")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:482] = b"%011o\0" % realsize + b"%011o\0" % 0 + bytes(72)
    header[482:495] = b"\0" + b"%011o\0" % realsize
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header[:512])


def test_a_golden_set_never_unfolds_into_more_than_its_bytes() -> None:
    holes = b"".join(sparse(4 << 20, number) for number in range(3)) + bytes(4 << 20)

    with pytest.raises(ContractError, match="it is no plain, single file"):
        read_golden(holes[: 4 << 20])


def test_headers_that_only_name_further_headers_end_in_one_clear_error() -> None:
    longname = tarfile.TarInfo("././@LongLink")
    longname.type, longname.size = tarfile.GNUTYPE_LONGNAME, 2

    with pytest.raises(ContractError, match="golden"):
        read_golden((longname.tobuf(tarfile.GNU_FORMAT) + b"a\0" + bytes(510)) * 3000)
