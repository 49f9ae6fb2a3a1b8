"""The same as ``mmvlr test``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['test', *sys.argv[1:]]))
