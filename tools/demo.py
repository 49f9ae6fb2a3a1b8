"""The same as ``mmvlr demo``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['demo', *sys.argv[1:]]))
