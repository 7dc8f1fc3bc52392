"""Working ahead: the next images are decoded, and masks drawn, while the network works on those before."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")
THREADS = min(len(os.sched_getaffinity(0)), 8)
AHEAD = THREADS + 2
MADE_AHEAD = 2
_END = object()


def prefetched(read: Callable[[Key], Value], keys: Iterable[Key]) -> Iterator[tuple[Key, Value]]:
    """Yield (key, read(key)) in order, reading up to AHEAD keys in advance in THREADS threads."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="read") as threads:
        waiting: deque[tuple[Key, Future[Value]]] = deque()
        for key in keys:
            waiting.append((key, threads.submit(read, key)))
            if len(waiting) > AHEAD:
                oldest, future = waiting.popleft()
                yield oldest, future.result()
        for key, future in waiting:
            yield key, future.result()


def ahead(items: Iterable[Value]) -> Iterator[Value]:
    """Iterate in a thread of its own, MADE_AHEAD items ahead; the first ones are begun at once."""
    thread, source = ThreadPoolExecutor(1, thread_name_prefix="ahead"), iter(items)
    waiting = deque(thread.submit(next, source, _END) for _ in range(MADE_AHEAD))
    return _taken(thread, source, waiting)


def _taken(
    thread: ThreadPoolExecutor, source: Iterator[Value], waiting: "deque[Future[Value | object]]"
) -> Iterator[Value]:
    with thread:
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(next, source, _END))
            yield item  # type: ignore[misc]  # it is no _END
