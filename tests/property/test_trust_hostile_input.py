"""Whatever arrives, trust answers with a TrustError or with what was really signed; never with another exception."""

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Role, Root, Snapshot, Targets, Timestamp

from edge_runtime.contract.device_state import ASSIGNMENT_PAYLOAD_TYPE
from edge_runtime.contract.errors import TrustError
from edge_runtime.trust import dsse
from edge_runtime.trust import metadata as tuf
from edge_runtime.trust.assignment import sign_assignment
from edge_runtime.trust.floors import floor_of, raised
from edge_runtime.trust.keys import SigningKey
from edge_runtime.trust.repository import load_repository
from edge_runtime.trust.trusted_time import PLAUSIBLE_AHEAD_S, trusted_now
from tests.fakes.trust_forge import DIGITS, INDEX, NOW, PATH, Forge, assignment

FORGE = Forge()
KEY = SigningKey.generate()
ENVELOPE = sign_assignment(assignment(), KEY)
NAMES = sorted(FORGE.files)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


class _Served:
    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def fetch(self, file_name: str, max_bytes: int) -> bytes | None:
        return self.files.get(file_name)


def _load_or_refuse(files: dict[str, bytes]) -> None:
    try:
        repository = load_repository(_Served(files), FORGE.first_root, now=NOW, floors={}, models=(DIGITS,))
    except TrustError:
        return
    assert repository.target(PATH).length == len(INDEX)


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(NAMES), content=st.binary(max_size=200))
def test_any_bytes_in_place_of_metadata_are_refused(name: str, content: bytes) -> None:
    _load_or_refuse({**FORGE.files, name: content})


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), where=st.integers(0, 10_000), value=st.integers(0, 255))
def test_one_changed_byte_never_changes_what_is_trusted(name: str, where: int, value: int) -> None:
    content = bytearray(FORGE.files[name])
    content[where % len(content)] = value

    _load_or_refuse({**FORGE.files, name: bytes(content)})


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from([name for name in NAMES if not name.endswith("keys.json")]))
def test_any_json_in_any_field_of_metadata_is_refused(data: st.DataObject, name: str) -> None:
    document = json.loads(FORGE.files[name])
    part = data.draw(st.sampled_from([document, document["signed"], document["signatures"][0]]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(json_values)

    _load_or_refuse({**FORGE.files, name: json.dumps(document).encode()})
    for kind in (Root, Timestamp, Snapshot, Targets):
        try:
            tuf.parse(json.dumps(document).encode(), kind, max_bytes=10**6, what="it")
        except TrustError:
            continue


@settings(max_examples=60, deadline=None)
@given(where=st.integers(0, len(ENVELOPE) - 1), letter=st.characters())
def test_one_changed_letter_of_an_envelope_never_changes_its_payload(where: int, letter: str) -> None:
    changed = ENVELOPE[:where] + letter + ENVELOPE[where + 1 :]
    keys = {KEY.public.key_id: KEY.public}
    honest = dsse.verify(ENVELOPE, ASSIGNMENT_PAYLOAD_TYPE, keys)

    with contextlib.suppress(TrustError):
        assert dsse.verify(changed, ASSIGNMENT_PAYLOAD_TYPE, keys) == honest


@given(text=st.text(max_size=300))
def test_any_text_in_place_of_an_envelope_is_refused(text: str) -> None:
    try:
        dsse.verify(text, ASSIGNMENT_PAYLOAD_TYPE, {KEY.public.key_id: KEY.public})
    except TrustError:
        return
    raise AssertionError(text)


times = st.floats(0, 4e9)


@given(system=st.floats(), build=times, floor=times, signed=st.none() | times)
def test_trusted_time_is_never_before_what_was_proven_nor_far_beyond_it(
    system: float, build: float, floor: float, signed: float | None
) -> None:
    now = trusted_now(system, build, floor, signed)

    proven = max(build, floor, signed or 0.0)
    assert proven <= now <= proven + PLAUSIBLE_AHEAD_S


@given(
    versions=st.lists(st.tuples(st.integers(1, 99), st.sets(st.sampled_from("abc"), min_size=1)), max_size=6),
    present=st.sets(st.sampled_from("abcd"), min_size=1),
)
def test_a_floor_under_unchanged_keys_is_the_highest_version_they_signed(
    versions: list[tuple[int, set[str]]], present: set[str]
) -> None:
    floors: dict[str, int] = {}
    for version, signers in versions:
        floors = raised(floors, "role", version, signers)

    expected = max((version for version, signers in versions if signers & present), default=0)
    assert floor_of(floors, "role", Role(sorted(present), 1)) == expected
