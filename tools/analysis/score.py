"""The same as ``mmvlr score``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['score', *sys.argv[1:]]))
