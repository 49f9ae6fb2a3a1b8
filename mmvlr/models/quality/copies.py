"""A changed copy of a backbone, which is neither stored nor trained."""

import weakref
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn


class BackboneCopy:
    """Make a changed copy of a backbone at first use, and again when its weights have changed.

    The copy is in eval mode. It is no part of the model, so no checkpoint holds it.

    Args:
        change: Changes the copy in place.
    """

    def __init__(self, change: Callable[[nn.Module], None]):
        self.change = change
        self._source: Callable[[], nn.Module | None] = lambda: None
        self._state: list[tuple[int, int]] = []
        self._copy: nn.Module | None = None

    def __call__(self, backbone: nn.Module) -> nn.Module:
        """Return the changed copy of a backbone."""
        tensors = [*backbone.parameters(), *backbone.buffers()]
        # In-place changes raise the version; `.data = ` and `.to()` change the address.
        state = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if self._source() is not backbone or self._state != state:
            # A copy made in inference mode could have no gradients.
            with torch.inference_mode(False):
                copy = deepcopy(backbone).eval()
                self.change(copy)
            self._source, self._state, self._copy = weakref.ref(backbone), state, copy
        return self._copy
