"""One thread for all clients that ask short questions without a pause: it goes round among them.

A thread for each of them costs more than such questions do: they fight for the interpreter and for the processor at
every answer. Nobody waits long for another all the same: what may take its time is not done here, and where it happens
nevertheless, the thread stays with that client, and another goes on with the round.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, Protocol, TypeVar

_log: Final = logging.getLogger(__name__)
TICK_S: Final = 0.02
"""An answer that takes longer, or twice as long at most, is no longer waited for by the others."""


class Member(Protocol):
    """Whose questions may be answered in a round."""

    def fileno(self) -> int:
        """The descriptor that becomes readable when a question comes."""

    def answer_next(self) -> bool:
        """Answer the question that came; False: this client must have a thread of its own."""

    def hang_up(self) -> None:
        """End the conversation; whoever goes on with it learns so at once."""


M = TypeVar("M", bound=Member)


class _Lead(Generic[M]):
    """The time for which one thread goes round."""

    __slots__ = ("answered", "heeds", "is_over", "parts_with", "serving")

    def __init__(self) -> None:
        self.answered = 0
        self.serving: M | None = None
        """Set before `heeds` is read. Others set `heeds` before they read this: one of the two sees the other."""
        self.heeds = False
        """Something changed: look under the lock before the next question is taken."""
        self.is_over = False
        self.parts_with: M | None = None
        """With whom the thread goes on when it is over."""


class Round(Generic[M]):
    """Clients that share a thread; there is none while there are no clients.

    Args:
        go_on: serves one of them in the calling thread, until it ends or joins again.
        name: of the door, for its threads.
    """

    def __init__(self, go_on: Callable[[M], None], name: str = "local") -> None:
        self._go_on = go_on
        self._name = name
        self._lock = threading.Lock()
        """Guards everything below."""
        self._members: dict[int, M] = {}
        self._recalled: dict[int, M] = {}
        self._poll: select.epoll | None = None
        self._bell = -1
        """Rings for as long as somebody is recalled; there is one while there is a poll."""
        self._lead: _Lead[M] | None = None
        self._is_watched = False
        self._asked = threading.Event()
        """Cleared while the watch rests, because nobody asks."""

    def join(self, member: M) -> bool:
        """Answer its questions from now on; False where the system does not give what that takes."""
        descriptor = member.fileno()
        with self._lock:
            try:
                poll = self._poll or self._open()
                poll.register(descriptor, select.EPOLLIN)
                self._members[descriptor] = member
                if self._lead is None:
                    self._begin(poll)
            except (OSError, RuntimeError):  # no more descriptors, no more threads
                self._leave(member)
                return False
        return True

    def recall(self, member: M) -> None:
        """Have its turn come though it asks nothing, at which it must leave; nothing where it is no member."""
        descriptor = member.fileno()
        with self._lock:
            if self._poll is not None and self._members.get(descriptor) is member:
                self._recalled[descriptor] = member
                os.eventfd_write(self._bell, 1)

    def _open(self) -> select.epoll:
        poll = self._poll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        poll.register(self._bell, select.EPOLLIN)
        return poll

    def _begin(self, poll: select.epoll) -> None:
        """Have a new thread go round; the lock is held. Raises: RuntimeError: there are no more threads."""
        if not self._is_watched:
            threading.Thread(target=self._watch, name=f"{self._name}-watch", daemon=True).start()
            self._is_watched = True
        lead = _Lead[M]()
        threading.Thread(target=self._go_round, args=(lead, poll), name=f"{self._name}-round", daemon=True).start()
        self._lead = lead
        self._asked.set()

    def _go_round(self, lead: _Lead[M], poll: select.epoll) -> None:
        with self._lock:
            pass  # whoever began this may not be ready yet
        members = self._members
        while True:
            for descriptor, _ in poll.poll():
                member = members.get(descriptor) or self._called(descriptor)
                if member is None:
                    continue  # it has left since
                lead.serving = member
                if lead.heeds and self._is_over(lead):
                    return self._part(lead)
                try:
                    stays = member.answer_next()
                except Exception as error:  # noqa: BLE001 - the others must not lose their thread
                    _log.error("%s: hung up on a client: it failed unexpectedly", self._name, exc_info=error)
                    member.hang_up()
                    stays = False
                if not stays and self._ends_with(lead, member):
                    return self._part(lead)
                lead.answered += 1
            lead.serving = None
            if lead.heeds and self._is_over(lead):
                return self._part(lead)

    def _part(self, lead: _Lead[M]) -> None:
        member, lead.parts_with, lead.serving = lead.parts_with, None, None
        assert member is not None
        self._go_on(member)

    def _called(self, descriptor: int) -> M | None:
        """Whoever is to have a turn because the bell rings."""
        with self._lock:
            if descriptor != self._bell:
                return None
            if not self._recalled:
                with suppress(BlockingIOError):  # the thread before saw to it
                    os.eventfd_read(self._bell)
            return next(iter(self._recalled.values()), None)

    def _is_over(self, lead: _Lead[M]) -> bool:
        with self._lock:
            lead.heeds = False
            self._asked.set()
            return lead.is_over

    def _ends_with(self, lead: _Lead[M], member: M) -> bool:
        """Whether the thread has to go on with this member alone; else it was hung up on."""
        with self._lock:
            if lead.is_over or self._pass_on(lead, member):
                return True
            self._leave(member)
            lead.serving = None  # the watch must not take it out a second time
        member.hang_up()
        self._go_on(member)
        return False

    def _pass_on(self, lead: _Lead[M], member: M) -> bool:
        """End a lead, whose thread goes on with this member; the lock is held. False: there are no more threads."""
        poll = self._poll
        assert poll is not None
        if len(self._members) > 1:
            try:
                self._begin(poll)
            except RuntimeError:
                return False
        self._leave(member)
        lead.is_over, lead.parts_with = True, member
        return True

    def _leave(self, member: M) -> None:
        """Take a member out, and tidy up behind the last one; the lock is held."""
        descriptor = member.fileno()
        self._recalled.pop(descriptor, None)
        if self._members.pop(descriptor, None) is not None and self._poll is not None:
            self._poll.unregister(descriptor)
        if not self._members and self._poll is not None:
            self._poll.close()
            self._poll = self._lead = None
            if self._bell >= 0:
                os.close(self._bell)
                self._bell = -1
            self._asked.set()

    def _watch(self) -> None:
        """See to it that no answer keeps the others waiting."""
        seen = None
        while True:
            with self._lock:
                lead = self._lead
                if lead is None:
                    self._is_watched = False
                    return
                lead.heeds = True
                serving = lead.serving
                if serving is not None and seen == (lead, lead.answered, serving):
                    self._pass_on(lead, serving)
                elif serving is None:
                    self._asked.clear()
                seen = lead, lead.answered, serving
            self._asked.wait()
            time.sleep(TICK_S)
