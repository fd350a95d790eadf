from __future__ import annotations

import threading

from kt_cli.zoo.prefetch import each


def test_each_item_comes_with_what_was_given_or_raised() -> None:
    found = dict(each([1, 0, 4], lambda x: 8 // x, 2))
    assert (found[1], found[4]) == (8, 2)
    assert isinstance(found[0], ZeroDivisionError)
    assert list(each([], str, 4)) == []


def test_not_more_than_so_many_at_a_time() -> None:
    lock, barrier = threading.Lock(), threading.Barrier(3, timeout=10)
    now, most = [0], [0]

    def work(item: int) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        barrier.wait()
        with lock:
            now[0] -= 1
        return item

    assert sorted(item for item, _ in each(range(12), work, 3)) == list(range(12))
    assert most[0] == 3


def test_nothing_is_begun_after_the_caller_stopped_asking() -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item:
            go_on.wait(5)

    for _ in each(range(100), work, 1):
        break
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "kt-download":
            thread.join(5)
    assert len(begun) <= 2
