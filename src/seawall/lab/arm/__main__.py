"""``python -m seawall.lab.arm FOLDER PID START [RIG [SECONDS [RUN]]]``: the watchdog of one runner."""

import sys

from seawall.lab.arm.watchdog import main

if __name__ == "__main__":
    main(sys.argv[1:])
