"""The write lock: one at a time, in the order of asking, re-entrant, and never lost."""

import threading
import time

import pytest

from rlhf.feedback.store.queueing import FairLock


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.001)


def queue_up(lock: FairLock, names: list[str], served: list[str]) -> list[threading.Thread]:
    """Threads that wait for the lock, each known to wait before the next one asks."""

    def work(name: str) -> None:
        with lock:
            served.append(name)

    threads = []
    for number, name in enumerate(names, start=1):
        threads.append(threading.Thread(target=work, args=(name,), daemon=True))
        threads[-1].start()
        wait_until(lambda number=number: len(lock._waiting) == number)
    return threads


def test_threads_are_served_in_the_order_in_which_they_came():
    lock, served = FairLock(), []
    names = [f"thread {number}" for number in range(20)]
    with lock:
        threads = queue_up(lock, names, served)
        assert served == []
    for thread in threads:
        thread.join(30)
    assert served == names
    with lock:  # and it is free again
        pass


def test_it_is_held_by_one_thread_at_a_time():
    lock, inside, most = FairLock(), [0], [0]

    def work() -> None:
        for _ in range(50):
            with lock, lock:  # a thread may take it again
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1]
    assert inside == [0]


def test_an_inner_exit_does_not_give_it_away():
    lock, served = FairLock(), []
    with lock:
        (thread,) = queue_up(lock, ["other"], served)
        with lock:
            pass
        time.sleep(0.05)
        assert served == []
    thread.join(30)
    assert served == ["other"]


def test_an_error_inside_gives_it_back():
    lock, served, threads = FairLock(), [], []

    def fail() -> None:
        with lock:
            threads.extend(queue_up(lock, ["next"], served))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    threads[0].join(30)
    assert served == ["next"]


@pytest.mark.parametrize("came_meanwhile", [False, True])
def test_a_thread_that_is_interrupted_while_it_waits_leaves_the_lock_to_others(came_meanwhile):
    lock, served = FairLock(), []
    lock.__enter__()
    threads = queue_up(lock, ["first", "second"], served)
    place = lock._waiting[0]
    if came_meanwhile:  # the interrupt comes when the lock has been handed over already
        lock._waiting.popleft()
        lock._owner, lock._depth = place[0], 1
        lock._give_up(place)
    else:
        lock._give_up(place)
        lock.__exit__()
    threads[1].join(30)
    assert served == ["second"]
