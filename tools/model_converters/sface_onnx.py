"""The same as ``mmvlr convert-sface``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['convert-sface', *sys.argv[1:]]))
