"""How the workers of a data loader hand over what they have loaded, and how they end.

torch passes every tensor between processes as an open file in shared memory. A label a face, kept
until a data set has been seen, is then an open file a face, and an account may open 1,024; a small
``/dev/shm`` is full after a few batches; and a worker that runs out of either loses a batch, for
which the main process waits for ever. Here tensors travel as plain bytes.
"""

import multiprocessing.queues
import os
import select
import traceback
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import DataLoader, get_worker_info

from .work import leave_with_parent

_is_prepared = False


def prepare_worker() -> None:
    """In a worker of a data loader, send tensors by value and end with the first failure.

    Whatever builds faces or batches calls it; it works once in each worker, and not elsewhere.
    """
    global _is_prepared
    if _is_prepared or get_worker_info() is None:
        return
    _is_prepared = True
    ForkingPickler.register(torch.Tensor, _reduce_by_value)
    # torch: a batch that cannot be sent would be missed without end.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_leave)
    # torch: a worker that is sending would wait for a parent that was killed.
    leave_with_parent()


def _reduce_by_value(tensor: torch.Tensor) -> tuple:
    try:
        return torch.from_numpy, (tensor.numpy(force=True),)
    except (TypeError, RuntimeError):  # bfloat16, sparse: numpy has no such arrays
        return reduce_tensor(tensor)


def _leave(error: Exception, batch: Any) -> None:
    traceback.print_exception(error)
    os._exit(1)


class _WatchedConnection(Connection):
    """The main process' end of the pipe, which asks from time to time who still writes into it.

    A worker that ends in the middle of a batch would leave its reader waiting for the rest.
    """

    def _recv(self, size: int, read: Any = os.read) -> Any:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)

        def read_while_alive(handle: int, count: int) -> bytes:
            while not poll.poll(2_000):
                ended = [worker.pid for worker in self.workers if not worker.is_alive()]
                if ended:
                    raise RuntimeError(
                        f'worker {ended[0]} of a data loader ended while it sent a batch; was it '
                        'killed, or out of memory?'
                    )
            return read(handle, count)

        return super()._recv(size, read_while_alive)


def watch_workers() -> None:
    """Let every data loader of this process notice a worker that ends while it sends a batch."""
    if getattr(DataLoader._get_iterator, 'is_watched', False):
        return
    original = DataLoader._get_iterator

    def get_iterator(self: DataLoader) -> Any:
        iterator = original(self)
        if self.num_workers:
            reader = iterator._worker_result_queue._reader
            reader.__class__ = _WatchedConnection
            reader.workers = iterator._workers
        return iterator

    get_iterator.is_watched = True
    DataLoader._get_iterator = get_iterator
