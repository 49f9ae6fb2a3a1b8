"""The same as ``mmvlr convert``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['convert', *sys.argv[1:]]))
