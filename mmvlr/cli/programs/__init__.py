"""The commands that train, test, prepare and report: each has ``add_arguments`` and ``run``."""
