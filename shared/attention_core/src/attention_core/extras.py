"""What a command says when the extra that it needs is not installed."""

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
