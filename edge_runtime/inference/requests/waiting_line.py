"""What becomes of those who wait for a model: its line, its workers, its end. Only what waits loads this.

The state is `Admission`'s; what its lock guards is touched here alone.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heapify, heappop, heappush
from time import monotonic
from typing import TYPE_CHECKING, Final

from edge_runtime.inference.requests.accounting import CANCELLED, EXPIRED, QUEUE, REJECTED
from edge_runtime.inference.requests.refusals import Cancelled, Closed, DeadlinePassed, Overloaded, Refused
from edge_runtime.inference.requests.turns import Refuse, Ticket, Turn, Work
from edge_runtime.inference.requests.whole import whole

if TYPE_CHECKING:
    from edge_runtime.inference.requests.admission import Admission

_LOOK_S: Final = 0.5
"""After which a waiter looks for a slot itself: Ctrl-C may have kept whoever gave it back from saying so."""


@whole
def submit(admission: Admission, work: Work, refuse: Refuse, deadline: float | None, priority: int) -> Ticket:
    """As `Admission.submit`."""
    turn = Turn(deadline, monotonic())
    turn.work, turn.refuse = work, refuse
    if turn.is_late(turn.joined):
        raise refused_late(admission)
    if _take_or_join(admission, turn, priority) and not _hand_to_worker(admission, turn):
        admission.leave()
        raise _counted(admission, _without_worker(admission))
    return Ticket(turn, partial(_withdraw, admission))


def on_idle(admission: Admission, call: Callable[[], None]) -> None:
    """As `Admission.on_idle`."""
    with admission.lock:
        admission.when_idle.append(call)
        admission.is_awaited = True
    settle(admission)


@whole
def close(admission: Admission) -> None:
    """As `Admission.close`."""
    with admission.lock:
        admission.is_open = False
        admission.take = deque[None]().pop
        turns = [turn for _, _, turn in admission.line if turn.state == "waiting"]
        for turn in turns:
            turn.state = "gone"
            turn.refusal = Closed()
        admission.line.clear()
        admission.waiting = 0
        for _ in range(admission.idle_workers):
            admission.ready.put(None)
        admission.idle_workers = 0
    _refuse_all(admission, turns)


def refused_late(admission: Admission) -> Refused:
    """The refusal of who comes after his deadline, counted."""
    return _counted(admission, DeadlinePassed())


def wait(admission: Admission, deadline: float | None, priority: int) -> None:
    """Take a slot in the calling thread as soon as it is its turn. Raises: as `Admission.enter`."""
    turn = Turn(deadline, monotonic())
    turn.wake = threading.Lock()
    turn.wake.acquire()
    try:
        if _take_or_join(admission, turn, priority):
            return
        _sleep(admission, turn, turn.wake)
        now = monotonic()
        if turn.refusal is None and not turn.is_late(now):
            admission.accounting.record().time(QUEUE, int((now - turn.joined) * 1e9))
            return
    except BaseException:  # Ctrl-C reaches the main thread while it waits
        if not _withdraw(admission, turn, Cancelled()) and turn.state == "granted":
            admission.leave()
        raise
    if turn.refusal is not None:
        refusal, turn.refusal = turn.refusal, None
        try:
            raise refusal
        finally:
            del refusal  # else the traceback and this frame hold each other, and the model's callers with them
    admission.leave()
    raise refused_late(admission)


def _sleep(admission: Admission, turn: Turn, wake: threading.Lock) -> None:
    """Until the turn has a slot or a refusal."""
    now = turn.joined
    until = threading.TIMEOUT_MAX if turn.deadline is None else turn.deadline
    while not wake.acquire(timeout=min(max(until - now, 0.0), _LOOK_S)):
        now = monotonic()
        if turn.is_late(now):
            _withdraw(admission, turn, DeadlinePassed())
            return
        settle(admission)


@whole
def _take_or_join(admission: Admission, turn: Turn, priority: int) -> bool:
    """Whether the turn has a slot at once; else it stands in the line. Raises: Refused."""
    late: list[Turn] = []
    refusal, has_slot = None, True
    with admission.lock:
        admission.is_awaited = True
        turn.state = "granted"  # first: what another signal does may raise as soon as the slot is taken
        try:
            admission.take()
        except IndexError:
            turn.state, has_slot = "new", False
            refusal = _join(admission, turn, priority, late)
        admission.is_awaited = bool(admission.line or admission.when_idle)
    _refuse_all(admission, late)
    if refusal is None:
        return has_slot
    try:
        raise _counted(admission, refusal)
    finally:
        del refusal  # as in `wait`


def _join(admission: Admission, turn: Turn, priority: int, late: list[Turn]) -> Refused | None:
    """Put a turn into the line, or say why not; the lock is held. Turns found late are added to `late`."""
    if not admission.is_open:
        return Closed()
    is_late_likely = admission.soonest is not None and turn.joined >= admission.soonest
    is_full, most = admission.waiting >= admission.queue_limit, 2 * admission.queue_limit
    if (is_full and is_late_likely) or len(admission.line) > most:
        _clear_out(admission, turn.joined, late)
    if admission.waiting >= admission.queue_limit:
        return Overloaded(admission.waiting, admission.pace_s * max(admission.waiting, 1))
    number = next(admission.numbers)
    turn.state = "waiting"
    admission.waiting += 1
    heappush(admission.line, (-priority, number, turn))
    if turn.deadline is not None and (admission.soonest is None or turn.deadline < admission.soonest):
        admission.soonest = turn.deadline
    return None


def _clear_out(admission: Admission, now: float, late: list[Turn]) -> None:
    """Drop the turns that are gone or late; the lock is held."""
    kept = []
    for entry in admission.line:
        turn = entry[2]
        if turn.state == "waiting" and turn.is_late(now):
            _drop(admission, turn, late)
        elif turn.state == "waiting":
            kept.append(entry)
    heapify(kept)
    admission.line[:] = kept
    admission.soonest = min((turn.deadline for _, _, turn in kept if turn.deadline is not None), default=None)


def _drop(admission: Admission, turn: Turn, late: list[Turn]) -> None:
    turn.state = "gone"
    turn.refusal = DeadlinePassed()
    admission.waiting -= 1
    late.append(turn)


@whole
def settle(admission: Admission) -> None:
    """As `Admission.settle`."""
    while _settle_once(admission):
        pass


def _settle_once(admission: Admission) -> bool:
    """As `settle`; whether slots came back, because who was next could not be started."""
    granted: list[Turn] = []
    late: list[Turn] = []
    ended: list[Callable[[], None]] = []
    with admission.lock:
        while admission.line:
            try:
                admission.free.pop()
            except IndexError:
                break
            turn = _next(admission, late)
            if turn is None:
                admission.free.append(None)
            else:
                granted.append(turn)
        if admission.when_idle and not admission.waiting and len(admission.free) == admission.slots:
            ended, admission.when_idle = admission.when_idle, []
        admission.is_awaited = bool(admission.line or admission.when_idle)
    _refuse_all(admission, late)
    came_back = [turn for turn in granted if not _start(admission, turn)]
    admission.free.extend([None] * len(came_back))
    for call in ended:
        call()
    return bool(came_back)


def _next(admission: Admission, late: list[Turn]) -> Turn | None:
    """The next turn, granted; the lock is held."""
    now = monotonic()
    while admission.line:
        turn = heappop(admission.line)[2]
        if turn.state != "waiting":
            continue
        if turn.is_late(now):
            _drop(admission, turn, late)
            continue
        turn.state = "granted"
        admission.waiting -= 1
        if admission.last_turn is not None:
            admission.pace_s += 0.2 * (now - admission.last_turn - admission.pace_s)
        admission.last_turn = now
        return turn
    admission.soonest = admission.last_turn = None
    return None


def _start(admission: Admission, turn: Turn) -> bool:
    """Let a turn that has its slot begin; False when it cannot, and was refused: the slot is the caller's again."""
    if turn.wake is not None:
        turn.wake.release()
    elif not _hand_to_worker(admission, turn):
        _withdraw(admission, turn, _without_worker(admission))
        return False
    return True


@whole
def _withdraw(admission: Admission, turn: Turn, refusal: Refused) -> bool:
    with admission.lock:
        if turn.state == "waiting":
            admission.waiting -= 1
        elif turn.state != "granted" or turn.work is None:
            return False
        # Work that was granted but not begun leaves its slot to its worker.
        turn.state = "gone"
        turn.refusal = refusal
    _refuse_all(admission, [turn])
    return True


def _refuse_all(admission: Admission, turns: list[Turn]) -> None:
    for turn in turns:
        assert turn.refusal is not None
        _counted(admission, turn.refusal)
        if turn.wake is not None:
            turn.wake.release()
        # Its tensors may be large, and the line and its owner may keep it for long.
        refuse, turn.work, turn.refuse = turn.refuse, None, None
        if refuse is not None:
            refuse(turn.refusal)


def _counted(admission: Admission, refusal: Refused) -> Refused:
    admission.accounting.record().count({"deadline": EXPIRED, "cancelled": CANCELLED}.get(refusal.code, REJECTED))
    return refusal


def _hand_to_worker(admission: Admission, turn: Turn) -> bool:
    """False when nobody is there to take it, for the system gives no more threads."""
    with admission.lock:
        is_one_idle = admission.idle_workers > 0
        admission.idle_workers -= is_one_idle
        ready = admission.ready
    if not is_one_idle:
        try:
            threading.Thread(target=_serve, args=(admission,), name="inference", daemon=True).start()
        except RuntimeError:
            return False
    # Only now: what lies there without a worker would keep its slot for ever.
    ready.put(turn)
    return True


def _without_worker(admission: Admission) -> Overloaded:
    return Overloaded(admission.waiting, admission.pace_s * max(admission.waiting, 1))


def _serve(admission: Admission) -> None:
    """A worker: there are never more of them than slots, because each runs work that holds one."""
    while (turn := admission.ready.get()) is not None:
        following: Turn | None = turn
        rests = False
        while following is not None:
            _run(admission, following)
            following, rests = _run_out(admission)
        if not rests:
            return


def _run_out(admission: Admission) -> tuple[Turn | None, bool]:
    """What the worker runs next in the same slot, else None when it gave the slot away; whether it rests then.

    Who rests is counted, and is owed one turn or one word that the line is closed. It must wait for that even where
    the line was closed since: the word would else be taken by a worker that was started to run a turn.
    """
    late: list[Turn] = []
    with admission.lock:
        following = _next(admission, late)
        is_over = following is None or following.work is None
        rests = is_over and admission.is_open
        admission.idle_workers += rests
    _refuse_all(admission, late)
    if not is_over:
        return following, False
    if following is None or not _start(admission, following):
        admission.leave()
    return None, rests


def _run(admission: Admission, turn: Turn) -> None:
    now = monotonic()
    with admission.lock:
        if turn.state == "gone":
            return
        is_late = turn.is_late(now)
        turn.state = "gone" if is_late else "running"
    if is_late:
        turn.refusal = DeadlinePassed()
        _refuse_all(admission, [turn])
        return
    work, turn.work, turn.refuse = turn.work, None, None
    assert work is not None
    admission.accounting.record().time(QUEUE, int((now - turn.joined) * 1e9))
    try:
        work()
    except Exception:  # noqa: BLE001 (one request's fault must not take a worker from all others)
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
