"""The aggregators, their losses, and survival."""

import re

import pytest
import torch
import torch.nn.functional as F
from rrt_mil import R2TMIL, R2TConfig, R2TMILConfig, survival
from rrt_mil.aggregators import smooth_svm

ENCODER = R2TConfig(dim=16, heads=4, crmsa_heads=2, epeg_k=3, shortcut=True)
KINDS = {
    "abmil": {},
    "gated": {"gated": True, "attention_bias": True},
    "clam_sb": {"aggregator": "clam_sb", "gated": True},
    "clam_mb": {"aggregator": "clam_mb", "subtyping": True},
    "dsmil": {"aggregator": "dsmil"},
    "ibmil": {"aggregator": "ibmil", "confounders": 3},
    "mean": {"aggregator": "mean"},
    "max": {"aggregator": "max"},
}


def classifier(kind: str, **changes: object) -> R2TMIL:
    sizes = {"features": 12, "dim": 16, "classes": 3, "attention_dim": 8, "encoder": ENCODER}
    return R2TMIL(R2TMILConfig(**{**sizes, **KINDS[kind], **changes})).double().eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoder", [ENCODER, None], ids=["r2t", "plain"])
def test_padded_batch_list_and_single_bags_agree(kind: str, encoder: R2TConfig | None) -> None:
    model = classifier(kind, encoder=encoder)
    lengths = (1, 70, 90)
    mask = torch.stack([torch.randperm(95) < n for n in lengths])
    x = torch.randn(3, 95, 12, dtype=torch.double)
    alone = torch.cat([model(bag[real]) for bag, real in zip(x, mask, strict=True)])
    torch.testing.assert_close(model(x, mask), alone, rtol=0, atol=1e-12)
    listed = model([bag[real] for bag, real in zip(x, mask, strict=True)])
    torch.testing.assert_close(listed, alone, rtol=0, atol=1e-12)
    labels = torch.tensor([2, 0, 1])
    losses = [model.loss(x[i, mask[i]][None], labels[i : i + 1]) for i in range(len(labels))]
    together = model.loss(x, labels, mask)
    torch.testing.assert_close(together, torch.stack(losses).mean(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_sums_to_one_over_the_real_instances(kind: str) -> None:
    model = classifier(kind)
    mask = torch.arange(80) < torch.tensor([[80], [33]])
    weights = model.attention(torch.randn(2, 80, 12), mask)
    assert weights.shape[0::2] == (2, 80)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    assert not weights[1, :, 33:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns_from_the_loss(kind: str) -> None:
    model = classifier(kind, subtyping=True).train()
    model.loss(torch.randn(4, 100, 12), torch.tensor([0, 1, 2, 1])).backward()
    silent = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert silent == []


def test_re_embedding_changes_only_the_judged_instances_of_dsmil() -> None:
    model = classifier("dsmil")
    x = torch.randn(1, 100, 12, dtype=torch.double)
    before = model.bags(x)
    model.instance_encoder.norm.weight.data *= -1
    after = model.bags(x)
    assert not torch.allclose(after.evidence, before.evidence)
    critical = before.evidence.argmax(1), after.evidence.argmax(1)
    same = (critical[0] == critical[1])[0]
    torch.testing.assert_close(after.scores[0][same], before.scores[0][same])


def test_smooth_svm_is_the_formula_of_the_card() -> None:
    scores, labels = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 0, 1])
    expected = [
        torch.logsumexp(torch.stack([s[j] + (j != y) for j in range(2)]), 0) - s[y]
        for s, y in zip(scores, labels, strict=True)
    ]
    torch.testing.assert_close(smooth_svm(scores, labels), torch.stack(expected).mean())


def test_clam_teaches_the_branch_of_the_label_with_both_ends_of_the_attention() -> None:
    model = classifier("clam_sb", encoder=None, instances=3, classes=2)
    x = torch.randn(1, 20, 12, dtype=torch.double)
    bags = model.bags(x)
    order = bags.scores[0, 0].argsort(descending=True)
    chosen = torch.cat([order[:3], order[-3:]])
    branch = model.aggregator.instance_classifiers[1]
    expected = smooth_svm(branch(bags.evidence[0][chosen]), torch.tensor([1] * 3 + [0] * 3))
    found = model.aggregator.instance_loss(bags, torch.tensor([1]), None)
    torch.testing.assert_close(found, expected)
    entropy = F.cross_entropy(bags.logits, torch.tensor([1]))
    loss = model.loss(x, torch.tensor([1]))
    torch.testing.assert_close(loss, 0.7 * entropy + 0.3 * expected)


def test_half_precision_features_are_read_in_the_models_precision() -> None:
    model = classifier("abmil").float()
    x = torch.randn(1, 50, 12)
    assert model(x.half()).dtype == torch.float32
    torch.testing.assert_close(model(x.half()), model(x), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aggregator": "transmil"}, "R2TMILConfig.aggregator='transmil': must be one of 'abmil'"),
        ({"activation": "tanh"}, "R2TMILConfig.activation='tanh'"),
        ({"attention_activation": "silu"}, "R2TMILConfig.attention_activation='silu'"),
        ({"dim": 256}, "R2TMILConfig.dim=256: must be the encoder's dim=512"),
        ({"aggregator": "ibmil"}, "R2TMILConfig.confounders=0: must be at least 1 for ibmil"),
        ({"confounders": 2}, "R2TMILConfig.confounders=2: must be 0 for all but ibmil"),
        ({"classes": 0}, "R2TMILConfig.classes=0"),
        ({"dropout": -0.1}, "R2TMILConfig.dropout=-0.1"),
    ],
)
def test_bad_configurations_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        R2TMILConfig(**changes)


def test_bad_calls_are_named() -> None:
    model = classifier("abmil")
    with pytest.raises(ValueError, match="this model takes features of width 12"):
        model(torch.zeros(1, 5, 1024))
    with pytest.raises(ValueError, match="an empty bag"):
        model([torch.zeros(0, 12)])
    with pytest.raises(ValueError, match=r"labels \[3\]: must be in 0 to 2"):
        model.loss(torch.zeros(1, 5, 12), torch.tensor([3]))
    with pytest.raises(ValueError, match="a mask goes with a padded batch"):
        model([torch.zeros(5, 12)], torch.ones(1, 5, dtype=torch.bool))


def test_survival_losses_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]], dtype=torch.double)
    hazard = logits.sigmoid()[0]
    alive = (1 - hazard).cumprod(0)
    torch.testing.assert_close(survival.risk(logits), -alive.sum()[None])
    bins, seen, lost = torch.tensor([2]), torch.zeros(1), torch.ones(1)
    event = -(alive[1].log() + hazard[2].log())
    torch.testing.assert_close(survival.nll_loss(logits, bins, seen), event)
    torch.testing.assert_close(survival.nll_loss(logits, bins, lost), -alive[2].log())
    torch.testing.assert_close(survival.ce_loss(logits, bins, lost), -alive[2].log())
    torch.testing.assert_close(survival.ce_loss(logits, bins, seen), -(1 - alive[2]).log())
    mixed = survival.ce_loss(logits, bins, seen, alpha=0.3)
    torch.testing.assert_close(mixed, -0.7 * (1 - alive[2]).log() + 0.3 * event)


def test_survival_losses_stay_finite_at_the_ends() -> None:
    logits = torch.tensor([[90.0, 90.0], [-90.0, -90.0]])
    for censored in (torch.zeros(2), torch.ones(2)):
        for loss in (survival.nll_loss, survival.ce_loss):
            assert loss(logits, torch.tensor([1, 1]), censored).isfinite()
