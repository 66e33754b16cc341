import pytest
from attention_core import needs_extra, one_line_errors


def test_a_command_names_the_library_and_the_extra_it_needs() -> None:
    with pytest.raises(SystemExit) as stopped, needs_extra("rmt", "images"):
        import a_library_nobody_has  # noqa: F401
    assert stopped.value.code == (
        "error: the rmt command needs a_library_nobody_has: "
        "install formers-rmt with its extra [images]"
    )


@pytest.mark.parametrize("error", [ValueError, TypeError, FileNotFoundError, ModuleNotFoundError])
def test_input_at_fault_ends_a_command_with_one_line(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped, one_line_errors():
        raise error("two\n  lines")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: two lines\n"


def test_a_mistake_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError
