"""Checks that need a process of their own: light import, torch.compile, two DDP processes.

``python isolated.py SLUG`` prints one JSON object.
"""

import copy
import importlib
import json
import os
import socket
import sys
import warnings
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
warnings.filterwarnings("ignore")

LIGHT = {
    "torch", "einops", "jaxtyping", "safetensors", "huggingface_hub", "numpy", "attention_core",
}  # fmt: skip
HEAVY = (
    "lightning", "pytorch_lightning", "timm", "transformers", "diffusers", "pandas", "matplotlib",
    "torchvision", "gymnasium", "h5py", "sklearn", "scipy", "PIL", "typer", "rich", "torchmetrics",
)  # fmt: skip


def imported_with(slug: str) -> list[str]:
    """Heavy libraries that ``import SLUG`` brings and torch alone does not."""
    for name in sorted(LIGHT):
        importlib.import_module(name)
    before = set(sys.modules)
    importlib.import_module(slug)
    return sorted(set(HEAVY) & (set(sys.modules) - before))


def gap(ours: Any, theirs: Any) -> float:
    """Largest difference between two nests of tensors, relative to their spread."""
    import torch

    if isinstance(ours, torch.Tensor):
        scale = theirs.detach().double().std(correction=0).clamp_min(1e-6)
        return ((ours - theirs).abs().max() / scale).item() if ours.numel() else 0.0
    if isinstance(ours, dict):
        return max((gap(ours[key], theirs[key]) for key in ours), default=0.0)
    if isinstance(ours, list | tuple):
        return max((gap(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)
    return 0.0 if ours == theirs else float("inf")


def loss_of(outputs: Any) -> Any:
    """A scalar that depends on every floating tensor of the outputs, a mean over the batch."""
    import torch

    if isinstance(outputs, torch.Tensor):
        return outputs.square().mean() if outputs.is_floating_point() else 0.0
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return sum(loss_of(value) for value in values if value is not None)


def compiled(paper: Any) -> list[float]:
    """Per tiny configuration: how far the outputs of one graph are from the eager ones.

    Of the first configuration also the gradients.
    """
    import einops
    import torch

    # Traced through, einops' parsing of patterns would take most of the time.
    for operation in (einops.rearrange, einops.reduce, einops.repeat, einops.pack, einops.unpack):
        torch.compiler.allow_in_graph(operation)
    gaps = []
    for config in paper.tiny:
        torch.manual_seed(0)
        model, inputs = paper.build(config).eval(), paper.inputs(config, None, 2)
        torch._dynamo.reset()
        graph = torch.compile(model, fullgraph=True, backend="aot_eager")
        eager, found = (outcome(call, inputs, model, not gaps) for call in (model, graph))
        gaps.append(gap(found, eager))
    return gaps


def outcome(call: Any, inputs: dict[str, Any], model: Any, learning: bool) -> list[Any]:
    """The outputs of ``call``, and if ``learning`` the gradients of the model's parameters."""
    import torch

    torch.manual_seed(1)
    with torch.set_grad_enabled(learning):
        outputs = call(**inputs)
    if not learning:
        return [outputs]
    wanted = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss_of(outputs), wanted, allow_unused=True)
    return [outputs, [g for g in gradients if g is not None]]


def distributed_step(paper: Any) -> list[float]:
    """Per network: parameters after one step on two gloo processes against one process."""
    import torch
    import torch.distributed as dist
    import torch.multiprocessing as mp
    from torch.nn.parallel import DistributedDataParallel

    configs = {type(config): config for config in reversed(paper.tiny)}.values()

    def stepped(model: Any, inputs: dict[str, Any]) -> list[Any]:
        loss_of(model(**inputs)).backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        return [p.detach() for p in model.parameters()]

    def made(config: Any) -> tuple[Any, dict[str, Any]]:
        torch.manual_seed(0)
        return paper.build(config).eval(), paper.inputs(config, None, 4)

    def process(rank: int, port: int, results: Any) -> None:
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
        )
        found = []
        for config in configs:
            model, inputs = made(config)
            mine = {key: value[2 * rank : 2 * rank + 2] for key, value in inputs.items()}
            torch.manual_seed(2)
            found.append(stepped(DistributedDataParallel(model, find_unused_parameters=True), mine))
        if rank == 0:
            results.put([[p.numpy() for p in parameters] for parameters in found])
        dist.barrier()
        dist.destroy_process_group()

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=process, args=(rank, port, results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    two = results.get(timeout=120)
    for worker in workers:
        worker.join(60)
    gaps = []
    for config, parameters in zip(configs, two, strict=True):
        model, inputs = made(config)
        torch.manual_seed(2)
        one = stepped(copy.deepcopy(model), inputs)
        gaps.append(
            max(
                (a - torch.from_numpy(b)).abs().max().item()
                for a, b in zip(one, parameters, strict=True)
            )
        )
    return gaps


def main(slug: str) -> None:
    found: dict[str, Any] = {"imported": imported_with(slug)}
    paper = importlib.import_module(f"{slug}.paper").PAPER
    if paper.tiny:
        found["ddp"] = distributed_step(paper)  # first: it forks
        found["compile"] = compiled(paper)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
