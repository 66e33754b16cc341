import pytest
from attention_core import Run
from resformer.paper import PAPER

FAST = [claim for claim in PAPER.claims if claim.measure and claim.fast]


@pytest.mark.parametrize("claim", FAST, ids=lambda claim: claim.id)
def test_fast_claim_holds(claim, tmp_path):
    evidence = claim.measure(Run(output=tmp_path))
    assert evidence.holds, evidence.measured
