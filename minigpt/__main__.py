"""`python -m minigpt` is the same as `minigpt`."""

from minigpt.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
