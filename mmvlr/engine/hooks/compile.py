"""The hook that compiles the backbone."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvlr.registry import HOOKS

from ..extraction import unwrap


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile the backbone with ``torch.compile`` for the duration of a training.

    The backbone takes most of the time and handles tensors only; data samples and losses are not
    compiled. It is compiled in place, so parameters keep their names in checkpoints.
    ``tools/train.py`` replaces ``compile=dict(...)`` in a config by this hook.

    Args:
        **kwargs: Arguments of :func:`torch.compile`, such as ``backend`` or ``mode``.
    """

    def __init__(self, **kwargs):
        self.kwargs = kwargs

    def before_train(self, runner: Runner) -> None:
        """Compile the backbone; the graph is built at the first batch."""
        unwrap(runner.model).backbone.compile(**self.kwargs)
