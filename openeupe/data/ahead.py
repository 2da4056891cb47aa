"""Read ahead by threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Read = TypeVar("Read")


def batched_ahead(
    read: Callable[[int], Read], indices: Sequence[int], batch_size: int, workers: int
) -> Iterator[list[Read]]:
    """Yield batches of `read(index)` in order. Threads read up to two batches ahead."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        left = iter(indices)
        ahead = [pool.submit(read, i) for i in islice(left, 3 * batch_size)]
        try:
            while ahead:
                batch = [future.result() for future in ahead[:batch_size]]
                ahead = ahead[batch_size:]
                ahead += [pool.submit(read, i) for i in islice(left, batch_size)]
                yield batch
        finally:
            for future in ahead:
                future.cancel()
