"""Reading ahead: the next images are decoded while the network works on this one."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")
THREADS = min(len(os.sched_getaffinity(0)), 8)
AHEAD = THREADS + 2


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
