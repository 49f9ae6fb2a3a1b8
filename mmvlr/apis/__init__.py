"""What tools and users call."""

from .runner import build_tester, build_trainer, load_config, resolve_num_classes

__all__ = ['build_tester', 'build_trainer', 'load_config', 'resolve_num_classes']
