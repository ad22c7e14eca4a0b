"""``python -m seawall``: the same program, for children that must run under the same interpreter."""

from seawall.cli import main

if __name__ == "__main__":
    main()
