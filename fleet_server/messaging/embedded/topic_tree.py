"""Which filters match a topic, and which retained topics match a filter: two tries over topic levels. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fleet_server.messaging.embedded.packets import Publish


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    clients: dict[str, int] = field(default_factory=dict)
    message: Publish | None = None

    def is_bare(self) -> bool:
        return not self.children and not self.clients and self.message is None


class Subscriptions:
    """Filters of all clients; the cost of a match grows with the topic's depth, not with the number of clients."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, client: str, topic_filter: str, qos: int) -> None:
        """Subscribe, or change the QoS of a subscription."""
        _reach(self._root, topic_filter).clients[client] = qos

    def remove(self, client: str, topic_filter: str) -> None:
        """Forget one subscription; unknown ones are ignored."""
        path = _path(self._root, topic_filter)
        if path:
            path[-1].clients.pop(client, None)
            _prune(path, topic_filter)

    def match(self, topic: str) -> dict[str, int]:
        """Every client with a matching filter, once, with the highest QoS it was granted."""
        found: dict[str, int] = {}
        levels = topic.split("/")
        # MQTT 3.1.1, 4.7.2: a wildcard at the first level does not reach topics that begin with '$'.
        hidden = topic.startswith("$")
        stack = [(self._root, 0)]
        while stack:
            node, depth = stack.pop()
            wild = not (hidden and depth == 0)
            if wild and (rest := node.children.get("#")) is not None:
                _merge(found, rest.clients)
            if depth == len(levels):
                _merge(found, node.clients)
                continue
            names = (levels[depth], "+") if wild else (levels[depth],)
            stack.extend((node.children[name], depth + 1) for name in names if name in node.children)
        return found


class RetainedMessages:
    """The last retained message of each topic, within bounds on number, bytes and messages per publisher."""

    __slots__ = ("_bytes", "_count", "_max_bytes", "_max_count", "_max_per_owner", "_owned", "_owner", "_root")

    def __init__(self, max_count: int, max_bytes: int, max_per_owner: int) -> None:
        self._root = _Node()
        self._owner: dict[str, str] = {}
        self._owned: dict[str, int] = {}
        self._count = 0
        self._bytes = 0
        self._max_count, self._max_bytes, self._max_per_owner = max_count, max_bytes, max_per_owner

    def keep(self, owner: str, message: Publish) -> bool:
        """Keep or (with an empty payload) forget; False when a bound is reached and the old message stands."""
        if not message.payload:
            self._forget(message.topic)
            return True
        path = _path(self._root, message.topic)
        old = path[-1].message if path else None
        grown = self._bytes + _size(message) - (_size(old) if old else 0)
        is_new = old is None
        owned = self._owned.get(owner, 0) + (self._owner.get(message.topic) != owner)
        if grown > self._max_bytes or self._count + is_new > self._max_count or owned > self._max_per_owner:
            return False
        self._disown(message.topic)
        self._owner[message.topic] = owner
        self._owned[owner] = owned
        self._bytes, self._count = grown, self._count + is_new
        _reach(self._root, message.topic).message = message
        return True

    def matching(self, topic_filter: str) -> Iterator[Publish]:
        """Every retained message whose topic matches the filter."""
        levels = topic_filter.split("/")
        stack = [(self._root, 0)]
        while stack:
            node, depth = stack.pop()
            if depth == len(levels):
                if node.message is not None:
                    yield node.message
                continue
            level = levels[depth]
            shown = [(n, c) for n, c in node.children.items() if node is not self._root or not n.startswith("$")]
            if level == "#":
                if node.message is not None:
                    yield node.message
                stack.extend((child, depth) for _, child in shown)
            elif level == "+":
                stack.extend((child, depth + 1) for _, child in shown)
            elif (child := node.children.get(level)) is not None:
                stack.append((child, depth + 1))

    def _forget(self, topic: str) -> None:
        path = _path(self._root, topic)
        if path and path[-1].message is not None:
            self._count -= 1
            self._bytes -= _size(path[-1].message)
            path[-1].message = None
            self._disown(topic)
            _prune(path, topic)

    def _disown(self, topic: str) -> None:
        owner = self._owner.pop(topic, None)
        if owner is not None:
            self._owned[owner] -= 1
            if not self._owned[owner]:
                del self._owned[owner]


def _size(message: Publish) -> int:
    return len(message.topic) + len(message.payload)


def _merge(found: dict[str, int], clients: dict[str, int]) -> None:
    for client, qos in clients.items():
        found[client] = max(qos, found.get(client, 0))


def _reach(node: _Node, topic: str) -> _Node:
    for level in topic.split("/"):
        node = node.children.setdefault(level, _Node())
    return node


def _path(node: _Node, topic: str) -> list[_Node]:
    """The nodes from the root down to `topic`, or nothing when it is not there."""
    path = [node]
    for level in topic.split("/"):
        child = path[-1].children.get(level)
        if child is None:
            return []
        path.append(child)
    return path


def _prune(path: list[_Node], topic: str) -> None:
    # Without this, a client that keeps inventing topics would grow the tree for ever.
    levels = topic.split("/")
    for depth in range(len(levels) - 1, -1, -1):
        if not path[depth + 1].is_bare():
            return
        del path[depth].children[levels[depth]]
