import pytest
from attention_core import Claim, Evidence, Paper, growth_exponent


def test_growth_exponent_is_the_power() -> None:
    sizes = [10, 20, 40, 80]
    assert growth_exponent(sizes, [3 * n**2 for n in sizes]) == pytest.approx(2)
    assert growth_exponent(sizes, [5 * n for n in sizes]) == pytest.approx(1)


def test_a_claim_needs_a_measurement_or_a_command() -> None:
    about = {"id": "c", "statement": "s", "source": "Table 1", "paper_says": "1", "cost": "1 s"}
    with pytest.raises(ValueError, match="neither a measurement nor a command"):
        Claim(**about)
    claim = Claim(**about, measure=lambda run: Evidence(measured="1", holds=True))
    paper = Paper(
        slug="p", title="t", authors="a", year=2024, venue="v", arxiv="", domain="d",
        summary="s", official="o", bibtex="b", claims=(claim,),
    )  # fmt: skip
    assert paper.claim("c") is claim
    with pytest.raises(ValueError, match="no claim 'd'; it has c"):
        paper.claim("d")
    with pytest.raises(TypeError, match="no network for a str"):
        paper.build("config")
