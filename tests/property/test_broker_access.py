"""No device may ever publish, subscribe or receive outside its own two prefixes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet_server.messaging.embedded.access import Action, fleet_access, unsafe_open_access
from fleet_server.messaging.embedded.hub import Hub, HubLimits
from fleet_server.messaging.embedded.packets import (
    Connect,
    MalformedPacket,
    Packet,
    Publish,
    Subscribe,
    Will,
    check_filter,
)
from fleet_server.messaging.embedded.session import Session, SessionLimits
from fleet_server.messaging.embedded.topic_tree import RetainedMessages, Subscriptions

may = fleet_access()

_names = st.sampled_from(["cam-1", "cam-10", "cam", "a", "fleet-server", "Cam-1", "+", "#", "cam-1/up", "", "$SYS"])
_words = st.sampled_from(["ef", "v1", "cam-1", "cam-10", "cam", "a", "up", "down", "x", "+", "#", "", "$SYS"])
_topics = st.one_of(
    st.lists(_words, min_size=1, max_size=7).map("/".join),
    st.tuples(_names, _words, _words).map(lambda p: f"ef/v1/{p[0]}/{p[1]}/{p[2]}"),
)
_LIMITS = SessionLimits(max_inflight=4, max_outbound_bytes=10_000, max_subscriptions=8)


def _is_filter(text: str) -> bool:
    """Whether the codec would let this reach the broker as a filter."""
    try:
        check_filter(text)
    except MalformedPacket:
        return False
    return True


class _Inbox:
    """An outlet that remembers what was sent."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []

    def send(self, packet: Packet) -> None:
        self.packets.append(packet)

    def backlog_bytes(self) -> int:
        return 0

    def close(self, why: str) -> None:
        del why

    def topics(self) -> list[str]:
        return [packet.topic for packet in self.packets if isinstance(packet, Publish)]


@given(_names, st.sampled_from(Action), _topics)
def test_a_device_is_allowed_nothing_outside_its_prefix(client: str, action: Action, topic: str) -> None:
    if client == "fleet-server" or not may(client, action, topic):
        return

    side = "down" if action in {Action.SUBSCRIBE, Action.DELIVER} else "up"
    assert topic.startswith(f"ef/v1/{client}/{side}/")
    assert not {"+", "#", "/"} & set(client)


@given(st.sampled_from(Action), _topics)
def test_even_the_server_stays_below_the_fleets_root(action: Action, topic: str) -> None:
    assert may("fleet-server", action, topic) == topic.startswith("ef/v1/")


@given(
    st.lists(st.tuples(st.sampled_from(["cam-1", "cam-10", "a"]), _topics, st.booleans()), max_size=12),
    st.lists(st.tuples(st.sampled_from(["cam-1", "cam-10", "a"]), _topics), max_size=8),
)
def test_whatever_devices_try_each_receives_only_its_own(
    published: list[tuple[str, str, bool]], subscribed: list[tuple[str, str]]
) -> None:
    hub, inboxes = _hub(), {name: _Inbox() for name in ("cam-1", "cam-10", "a", "fleet-server")}
    sessions = {name: hub.connect(name, Connect(name), inbox) for name, inbox in inboxes.items()}
    for number, (name, topic_filter) in enumerate(subscribed, 1):
        _act(hub, sessions[name], Subscribe(number, ((topic_filter, 1),)))
    _act(hub, sessions["fleet-server"], Subscribe(1, (("ef/v1/+/up/#", 1), ("ef/v1/+/down/#", 0))))
    for name, topic, retain in published:
        _act(hub, sessions[name], Publish(topic, b"x", 0, retain))
        _act(hub, sessions["fleet-server"], Publish(topic, b"x", 0, retain))

    for name in ("cam-1", "cam-10", "a"):
        assert all(topic.startswith(f"ef/v1/{name}/down/") for topic in inboxes[name].topics())
    assert all(topic.startswith("ef/v1/") for topic in inboxes["fleet-server"].topics())


@given(st.sampled_from(["cam-1", "a", "", "fleet-server"]), st.sampled_from(["cam-1", "a", "", "fleet-server"]))
def test_only_the_named_certificate_opens_a_session(certificate: str, client: str) -> None:
    hub, victim = _hub(), _Inbox()
    before = hub.connect(client, Connect(client), victim)

    after = hub.connect(certificate, Connect(client), _Inbox())

    assert before is not None
    assert (after is not None) == (certificate == client)
    assert before.ended == (certificate == client)


def test_a_foreign_will_is_refused_at_connect() -> None:
    hub = _hub()

    assert hub.connect("a", Connect("a", will=Will("ef/v1/cam-1/up/status", b"lost")), _Inbox()) is None
    assert hub.connect("a", Connect("a", will=Will("ef/v1/a/up/status", b"lost")), _Inbox()) is not None


@given(st.lists(st.tuples(_topics, _topics), max_size=20), _topics)
def test_the_tree_agrees_with_the_rule_it_implements(entries: list[tuple[str, str]], topic: str) -> None:
    tree = Subscriptions()
    kept = {(f"c{n}", entry[0]) for n, entry in enumerate(entries)}
    for client, topic_filter in kept:
        tree.add(client, topic_filter, 1)
    name = topic.replace("+", "p").replace("#", "h")

    assert set(tree.match(name)) == {client for client, topic_filter in kept if _matches(topic_filter, name)}
    for client, topic_filter in kept:
        tree.remove(client, topic_filter)
    assert tree.match(name) == {}


@given(st.lists(_topics, max_size=20), _topics.filter(_is_filter))
def test_retained_messages_are_found_by_the_same_rule(topics: list[str], topic_filter: str) -> None:
    names = {topic.replace("+", "p").replace("#", "h") for topic in topics}
    retained = RetainedMessages(100, 10_000, 100)
    for name in names:
        assert retained.keep("a", Publish(name, b"x", 0, retain=True))

    found = [message.topic for message in retained.matching(topic_filter)]

    assert sorted(found) == sorted(name for name in names if _matches(topic_filter, name))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("wxyz"), st.integers(0, 40)), max_size=40))
def test_retained_messages_stay_within_their_bounds(kept: list[tuple[str, str, int]]) -> None:
    retained = RetainedMessages(3, 60, 2)
    owners: dict[str, str] = {}
    for owner, topic, size in kept:
        if retained.keep(owner, Publish(topic, bytes(size), 0, retain=True)):
            owners[topic] = owner
        messages = {message.topic: message for message in retained.matching("#")}

        assert len(messages) <= 3
        assert sum(len(message.topic) + len(message.payload) for message in messages.values()) <= 60
        assert all(sum(owners[topic] == who for topic in messages) <= 2 for who in "ab")


def test_open_access_really_is_open() -> None:
    assert unsafe_open_access("a", Action.PUBLISH, "ef/v1/cam-1/down/cmd/1")


def _hub() -> Hub:
    def note(event: str, *, client: str, detail: str = "") -> None:
        del event, client, detail

    limits = HubLimits(_LIMITS, _LIMITS, max_retained=10, max_retained_bytes=1000, max_retained_per_client=5)
    return Hub(may, limits, server_client_id="fleet-server", journal=note)


def _act(hub: Hub, session: Session | None, packet: Packet) -> None:
    assert session is not None
    assert hub.handle(session, packet)


def _matches(topic_filter: str, topic: str) -> bool:
    """MQTT 3.1.1, 4.7, the slow and obvious way; misplaced wildcards match only themselves, and topics have none."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[0] in {"+", "#"} and topic.startswith("$"):
        return False
    for depth, level in enumerate(wanted):
        if level == "#" and depth == len(wanted) - 1:
            return True
        if depth >= len(levels) or level not in {"+", levels[depth]}:
            return False
    return len(wanted) == len(levels)
