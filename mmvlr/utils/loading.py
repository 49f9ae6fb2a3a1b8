"""Send tensors from the workers of a data loader by value, and detect dead workers.

torch passes every tensor between processes as an open file in shared memory. One label per face,
kept for a whole data set, is then one open file per face, while the usual limit is 1,024; a small
``/dev/shm`` is full after a few batches; and a worker that exceeds either limit loses a batch, for
which the main process waits forever. Here tensors are sent as plain bytes.
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
    """Make a worker of a data loader send tensors by value and exit at the first failure.

    Code that builds faces or batches calls it; it takes effect once in each worker only.
    """
    global _is_prepared
    if _is_prepared or get_worker_info() is None:
        return
    _is_prepared = True
    ForkingPickler.register(torch.Tensor, _reduce_by_value)
    # torch would wait forever for a batch that cannot be sent.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_leave)
    # torch: a sending worker would wait forever for a parent that was killed.
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
    """The main process' end of the pipe, which regularly checks that its writers are alive.

    Otherwise the reader would wait forever for the rest of a batch of a worker that has died.
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
    """Make every data loader of this process detect a worker that dies while sending a batch."""
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
