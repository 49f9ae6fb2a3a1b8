"""The same as ``mmvlr browse``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['browse', *sys.argv[1:]]))
