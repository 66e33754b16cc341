"""``python -m formers``."""

from formers.cli import main

if __name__ == "__main__":
    main()
