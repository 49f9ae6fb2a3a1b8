"""The same as ``mmvlr degrade``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['degrade', *sys.argv[1:]]))
