"""`python -m pgamb` is `pgamb`."""

from pgamb.cli import main

if __name__ == "__main__":
    main()
