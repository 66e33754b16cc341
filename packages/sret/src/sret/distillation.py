"""Learning from a teacher's soft labels alone."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def distillation_loss(
    student: Float[Tensor, "b classes"],
    teacher: Float[Tensor, "b teacher_classes"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Mean over the batch of -sum softmax(teacher/T) log softmax(student/T), from logits.

    No label takes part, and T does not multiply the loss.

    Raises:
        ValueError: when the teacher tells another number of classes apart.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"the teacher's logits have shape {list(teacher.shape)}, the student's "
            f"{list(student.shape)}: they must tell the same classes apart"
        )
    target = (teacher / temperature).softmax(-1)
    return -(target * (student / temperature).log_softmax(-1)).sum(-1).mean()


class Teacher(nn.Module):
    """A frozen network in evaluation mode that sees the student's images.

    Args:
        network: logits of images; a module or any callable.
        mean: that ``network`` wants its images normalised by; the student's by default.
        std: likewise.
        student_mean: that the student's images are normalised by.
        student_std: likewise.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        student_mean: Sequence[float] = IMAGENET_MEAN,
        student_std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.network = network
        if isinstance(network, nn.Module):
            network.requires_grad_(False)
        pairs = (student_mean, student_std, mean or student_mean, std or student_std)
        ours, spread, theirs, width = (torch.tensor(v)[:, None, None] for v in pairs)
        self.scale: Tensor
        self.offset: Tensor
        self.register_buffer("scale", spread / width)
        self.register_buffer("offset", (ours - theirs) / width)
        self.train(False)

    @classmethod
    def named(cls, name: str, *, weights: str | None = None, **normalisation: Any) -> "Teacher":
        """The teacher that a text names.

        Args:
            name: of a timm network, or ``module:function``, which is called without arguments for a
                callable.
            weights: file for the timm network; its pretrained ones by default.
            normalisation: ``student_mean`` and ``student_std``.

        Raises:
            ValueError: when there is no such network, module or function.
        """
        module, _, function = name.partition(":")
        if function:
            try:
                return cls(getattr(importlib.import_module(module), function)(), **normalisation)
            except (ImportError, AttributeError) as error:
                raise ValueError(f"teacher={name!r}: {error}") from error
        import timm

        if not timm.is_model(name):
            raise ValueError(f"teacher={name!r}: timm has no such network; give module:function")
        network = timm.create_model(name, pretrained=weights is None, checkpoint_path=weights or "")
        steps = timm.data.resolve_model_data_config(network)
        return cls(network, mean=steps["mean"], std=steps["std"], **normalisation)

    def train(self, mode: bool = True) -> "Teacher":
        """Evaluation mode, always."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b classes"]:
        """Logits of images that are normalised as the student takes them."""
        logits = self.network(images * self.scale + self.offset)
        return logits if isinstance(logits, Tensor) else logits[0]
