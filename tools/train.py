"""The same as ``mmvlr train``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]]))
