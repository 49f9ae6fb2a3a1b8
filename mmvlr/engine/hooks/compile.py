"""The hook that compiles the backbone."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvlr.registry import HOOKS

from ..extraction import unwrap


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile the backbone with ``torch.compile`` for the time of a training.

    The backbone is what takes the time, and tensors are all it sees: data samples and losses stay
    outside. It is compiled in place, so parameters keep their names in checkpoints. A config writes
    ``compile=dict(...)`` and ``tools/train.py`` makes this hook of it.

    Args:
        **kwargs: Those of :func:`torch.compile`, such as ``backend`` or ``mode``.
    """

    def __init__(self, **kwargs):
        self.kwargs = kwargs

    def before_train(self, runner: Runner) -> None:
        """Compile; the graph is made at the first batch."""
        unwrap(runner.model).backbone.compile(**self.kwargs)
