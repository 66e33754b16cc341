"""Runs a golden case: what the authors' code printed, asked of these models."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from attention_core import GoldenCase, load_state
from torch import Tensor
from torch.func import functional_call

from rrt_mil import survival
from rrt_mil.encoder import R2T
from rrt_mil.model import R2TMIL
from rrt_mil.official import convert, convert_encoder

_ENCODER = {
    "region_num": "regions",
    "n_heads": "heads",
    "crmsa_heads": "crmsa_heads",
    "all_shortcut": "shortcut",
    "region_size": "region_size",
    "min_region_num": "least_instances",
    "min_region_ratio": "least_fill",
    "ffn_act": "mlp_activation",
}
_MODEL = {"act": "activation", "da_act": "attention_activation", "subtyping": "subtyping"}
_MODEL |= {"k_sample": "instances"}
_EPEG = {"value_bf": "value", "value_af": "output"}


def run_golden(case: GoldenCase) -> dict[str, Any]:
    """The outputs that the case names.

    Gradients are those of the mean square of the first output, of the bag that an input gradient
    names or else the largest one. They are taken through the conversion, so they have the authors'
    names and shapes.
    """
    if not case.record["state_dict"]:
        return _survival(case)
    state = {key: value.requires_grad_() for key, value in case.state_dict().items()}
    inputs = {k: v.requires_grad_() for k, v in case.inputs().items() if isinstance(v, Tensor)}
    confounders = inputs.pop("confounders", None)
    model, weights = _build(case, state, confounders)
    wanted = list(case.record["outputs"])
    largest = max(inputs, key=lambda name: inputs[name].numel())
    named = [name.removeprefix("grad:input:") for name in wanted if name.startswith("grad:input:")]
    seen = {name: _run(model, weights, bag) for name, bag in inputs.items()}

    bag = named[0] if named else largest
    loss = next(iter(seen[bag].values())).square().mean()
    leaves = state | {f"input:{bag}": inputs[bag], "input": inputs[bag]}
    keys = [name.removeprefix("grad:") for name in wanted if name.startswith("grad:")]
    gradients: tuple[Tensor | None, ...] = ()
    if keys:
        gradients = torch.autograd.grad(loss, [leaves[key] for key in keys], allow_unused=True)
    outputs = {
        f"grad:{key}": torch.zeros_like(leaves[key]) if gradient is None else gradient
        for key, gradient in zip(keys, gradients, strict=True)
    }
    for name in wanted:
        if name not in outputs:
            kind, _, which = name.partition(":")
            outputs[name] = seen[which or largest][kind]
    return outputs


def _build(
    case: GoldenCase, state: Mapping[str, Tensor], confounders: Tensor | None
) -> tuple[R2T | R2TMIL, dict[str, Tensor]]:
    config = case.config
    told = config.get("rrt") or config
    encoder = {ours: told[theirs] for theirs, ours in _ENCODER.items() if theirs in told}
    if "region_size" in encoder:
        encoder["region_size"] = encoder["region_size"] or None
    if told.get("epeg_type") in _EPEG:
        encoder["epeg"] = _EPEG[told["epeg_type"]]
    encoder["position_first"] = told.get("pos_pos") == -1
    model: R2T | R2TMIL
    if "norm.weight" in state:
        encoder_config, weights = convert_encoder(state, **encoder)
        model = R2T(encoder_config)
    else:
        settings = {ours: config[theirs] for theirs, ours in _MODEL.items() if theirs in config}
        if "max" in case.name.lower():
            settings["aggregator"] = "max"
        model_config, weights = convert(
            state, encoder=encoder, confounders=confounders, settings=settings
        )
        model = R2TMIL(model_config)
    model = model.to(case.dtype).eval()
    load_state(model, {key: value.detach() for key, value in weights.items()})
    return model, weights


def _run(model: R2T | R2TMIL, weights: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """Everything that a case may name, for one bag; the first is what gradients are of."""
    kept: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda module, arguments, output: kept.update({name: output})

    if isinstance(model, R2T):
        last = model.layers[-1] if len(model.layers) else None
        places = {"after_rmsa": last, "after_crmsa": model.cross}
        hooks = [
            part.register_forward_hook(keep(name))
            for name, part in places.items()
            if part is not None
        ]
        out = functional_call(model, weights, (x,))
    else:
        hooks = [model.aggregator.register_forward_hook(keep("bags"))]
        out = functional_call(model, weights, (x,))
    for hook in hooks:
        hook.remove()
    if isinstance(model, R2T):
        return {"out": out, **kept}
    bags, labels = kept["bags"], torch.arange(model.config.classes)
    entropy = torch.stack([F.cross_entropy(out, label[None]) for label in labels])
    scores = bags.scores[0]
    found = {
        "logits": out,
        "bag_logits": out,
        "attention": scores.softmax(-1),
        "attention_raw": scores,
        "cross_entropy_by_label": entropy,
    }
    if model.config.aggregator == "dsmil":
        found["max_instance_logits"] = bags.evidence[0].amax(0)
        found["instance_logits"] = bags.evidence[0]
    if model.config.aggregator.startswith(("clam", "dsmil")):
        losses = [model.aggregator.instance_loss(bags, label[None], None) for label in labels]
        found["instance_loss_by_label"] = torch.stack(losses)
        found["total_loss_by_label"] = torch.stack([model.loss(x, label[None]) for label in labels])
    return found


def _survival(case: GoldenCase) -> dict[str, Any]:
    logits = case.inputs()["survival_logits"]
    bins = torch.tensor(case.config["bins"])
    censored = torch.tensor(case.config["censored"], dtype=logits.dtype)
    losses = [
        survival.nll_loss(logits, bins, censored),
        survival.nll_loss(logits, bins, censored, alpha=0.4),
        survival.ce_loss(logits, bins, censored, alpha=0.4),
    ]
    return {
        "hazards": survival.hazards(logits),
        "survival": survival.survival(logits),
        "risk": survival.risk(logits),
        "losses": torch.stack(losses),
    }
