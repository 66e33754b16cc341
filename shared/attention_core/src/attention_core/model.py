"""The base of every paper's network: variants, official checkpoints, the Hub's layout."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from torch import Tensor, nn

from attention_core.checkpoints import load_state, read_checkpoint
from attention_core.config import from_dict, replace
from attention_core.files import atomic_directory

WEIGHTS_FILE = "model.safetensors"


class PaperModel(nn.Module, PyTorchModelHubMixin):
    """An ``nn.Module`` built from one frozen configuration.

    A subclass sets ``variants`` and takes ``config`` as the only argument of ``__init__``,
    annotated with its dataclass; it calls ``super().__init__(config)``, which keeps it as
    ``self.config``.
    ``save_pretrained`` writes ``config.json`` and ``model.safetensors``.
    """

    variants: ClassVar[Mapping[str, Any]] = {}
    config_class: ClassVar[type]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "__init__" in cls.__dict__:
            cls.config_class = inspect.signature(cls.__init__).parameters["config"].annotation
        super().__init_subclass__(**{"library_name": "formers", **kwargs})

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_variant(cls, name: str, **changes: Any) -> Self:
        """A published variant with fresh weights, ``changes`` applied to its configuration.

        Raises:
            ValueError: for an unknown variant or field; the message lists the known ones.
        """
        if name not in cls.variants:
            raise ValueError(
                f"{cls.__name__} has no variant {name!r}; it has {', '.join(cls.variants)}"
            )
        return cls(replace(cls.variants[name], **changes))

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Self:
        """The network in a file of the authors' or a folder (or Hub repository) of ours.

        Args:
            path: a name without suffix that is no file is a folder or a repository.
            options: for a file, those of ``from_official``.

        Raises:
            CheckpointError: when the file holds another network.
            FileNotFoundError: when it is not there.
        """
        if Path(path).is_dir() or not (Path(path).suffix or Path(path).exists()):
            return cls.from_pretrained(str(path))
        return cls.from_official(path, **options)  # type: ignore[attr-defined]

    @classmethod
    def from_state(cls, config: Any, state: Mapping[str, Tensor]) -> Self:
        """The model of ``config`` with exactly the weights of ``state``, in evaluation mode."""
        model = cls(config)
        load_state(model, state)
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> str | None:
        """Write ``config.json``, ``model.safetensors`` and a model card; all or nothing."""
        kwargs.setdefault("repo_id", Path(save_directory).name)
        with atomic_directory(save_directory) as stage:
            return super().save_pretrained(stage, **kwargs)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self:
        """The model that ``save_pretrained`` wrote: a folder, or a repository on the Hub.

        Raises:
            ValueError: when a weight is missing, unexpected or of another shape.
        """
        return super().from_pretrained(*args, **kwargs)

    @classmethod
    def _decode_arg(cls, expected_type: Any, value: Any) -> Any:
        """The mixin would leave tuples as lists."""
        return from_dict(cls.config_class, value)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        strict: bool = True,
        **model_kwargs: Any,
    ) -> Self:
        config = model_kwargs.get("config")
        if config is None:
            raise FileNotFoundError(f"{model_id} holds no config.json")
        if Path(model_id).is_dir():
            weights = Path(model_id) / WEIGHTS_FILE
        else:
            weights = Path(
                hf_hub_download(
                    repo_id=model_id,
                    filename=WEIGHTS_FILE,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    token=token,
                    local_files_only=local_files_only,
                )
            )
        state = read_checkpoint(weights)
        if strict:
            return cls.from_state(config, state).to(map_location)
        model = cls(config)
        model.load_state_dict(state, strict=False)
        return model.eval().to(map_location)
