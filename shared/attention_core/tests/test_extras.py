import pytest
from attention_core import needs_extra


def test_a_command_names_the_library_and_the_extra_it_needs() -> None:
    with pytest.raises(SystemExit) as stopped, needs_extra("rmt", "images"):
        import a_library_nobody_has  # noqa: F401
    assert stopped.value.code == (
        "error: the rmt command needs a_library_nobody_has: "
        "install formers-rmt with its extra [images]"
    )
