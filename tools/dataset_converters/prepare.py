"""The same as ``mmvlr prepare``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['prepare', *sys.argv[1:]]))
