"""The same as ``mmvlr summarize``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['summarize', *sys.argv[1:]]))
