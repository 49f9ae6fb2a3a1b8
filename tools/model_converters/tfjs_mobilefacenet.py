"""The same as ``mmvlr convert-mobilefacenet``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['convert-mobilefacenet', *sys.argv[1:]]))
