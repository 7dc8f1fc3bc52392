import threading
import time
from collections.abc import Iterator

import pytest

from tasks.running.prefetch import MADE_AHEAD, ahead, prefetched


def test_values_come_in_the_order_of_their_keys() -> None:
    def read(key: int) -> int:
        time.sleep(0.002 * (key % 3))
        return key * key

    assert list(prefetched(read, range(20))) == [(key, key * key) for key in range(20)]


def test_items_come_in_order_and_only_some_are_made_ahead() -> None:
    made, threads = list[int](), set[str]()

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            threads.add(threading.current_thread().name)
            yield number

    taken, found = list[int](), ahead(items())
    for item in found:
        assert len(made) <= len(taken) + MADE_AHEAD + 1
        taken.append(item)
    assert taken == made == list(range(10))
    assert threading.current_thread().name not in threads


def test_the_first_items_are_made_before_one_is_asked_for() -> None:
    begun = threading.Event()

    def items() -> Iterator[int]:
        begun.set()
        yield 1

    found = ahead(items())
    assert begun.wait(10)
    assert list(found) == [1]


def test_what_goes_wrong_there_is_raised_here_and_no_thread_is_left() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise RuntimeError("no more")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(RuntimeError, match="no more"):
        next(found)
    assert list(ahead(iter([]))) == []
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_a_caller_that_stops_early_leaves_no_thread() -> None:
    found = ahead(iter(range(100)))
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]  # it is a generator
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())
