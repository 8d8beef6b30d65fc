"""`python -m train ...` is `mmtl train ...`, in the form in which torchrun starts it."""

import sys

from edge.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
