"""The same as ``mmvlr fit-degradation``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['fit-degradation', *sys.argv[1:]]))
