"""The commands that train, test, prepare and report: each module has a ``main(argv)``."""
