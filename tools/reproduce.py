"""The same as ``mmvlr reproduce``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['reproduce', *sys.argv[1:]]))
