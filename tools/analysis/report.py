"""The same as ``mmvlr report``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['report', *sys.argv[1:]]))
