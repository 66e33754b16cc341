"""What commands say when an extra is missing, or the user's input is at fault."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(command: str, extra: str) -> Iterator[None]:
    """Around the imports of a package's command: a missing library ends it with a plain line.

    Args:
        command: the command's name, which is the package's too, ``formers-COMMAND``.
        extra: of the package, that brings the libraries.

    Raises:
        SystemExit: naming the missing library and the extra.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        sys.exit(
            f"error: the {command} command needs {missing.name}: "
            f"install formers-{command} with its extra [{extra}]"
        )


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Inside a command: input that is at fault ends it with one line and exit code 2.

    Raises:
        SystemExit: for a wrong value or type, a file that can't be read, or a missing library.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from error
