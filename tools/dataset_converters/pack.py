"""The same as ``mmvlr pack``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['pack', *sys.argv[1:]]))
