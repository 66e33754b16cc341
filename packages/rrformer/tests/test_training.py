import torch
from image_restoration_kit.data import DrawnImages
from lightning.pytorch import Trainer
from rrformer.data import Reflections
from rrformer.paper import PAPER
from rrformer.train import Training
from torch.utils.data import DataLoader


def test_the_discriminator_learns_from_its_epoch_on() -> None:
    torch.manual_seed(0)
    module = Training(PAPER.tiny[1], feature_weight=0, gan_epoch=1)
    before = [p.detach().clone() for p in module.discriminator.parameters()]
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False}
    loader = DataLoader(Reflections(DrawnImages(), 32, 1), 1)
    Trainer(max_epochs=1, **options).fit(module, loader)
    assert all(a.equal(b) for a, b in zip(before, module.discriminator.parameters(), strict=True))
    Trainer(max_epochs=2, **options).fit(module, loader)
    after = list(module.discriminator.parameters())
    assert not any(a.equal(b) for a, b in zip(before[::2], after[::2], strict=True))
