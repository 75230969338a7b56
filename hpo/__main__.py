"""Run the command line: `python -m hpo`, and the console script `hpo`."""

import sys

from hpo.start import restart


def main() -> int:
    """Run a command in an interpreter that was started as every process of this program is."""
    restart()
    from hpo.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
