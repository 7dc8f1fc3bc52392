"""Reading ahead: the next images are decoded while the network works on this one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")
AHEAD = 4


def prefetched(read: Callable[[Key], Value], keys: Iterable[Key]) -> Iterator[tuple[Key, Value]]:
    """Yield (key, read(key)) in order, reading up to AHEAD keys in advance in threads."""
    with ThreadPoolExecutor(2, thread_name_prefix="read") as threads:
        waiting: deque[tuple[Key, Future[Value]]] = deque()
        for key in keys:
            waiting.append((key, threads.submit(read, key)))
            if len(waiting) > AHEAD:
                oldest, future = waiting.popleft()
                yield oldest, future.result()
        for key, future in waiting:
            yield key, future.result()
