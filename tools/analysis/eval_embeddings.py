"""The same as ``mmvlr evaluate``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['evaluate', *sys.argv[1:]]))
