"""The guide's callbacks, run as the guide shows them; Lightning where it is installed."""

import pathlib
import re
from types import SimpleNamespace

import pytest

import dnc
from tests.analysis.test_meter import assert_same

torch = pytest.importorskip("torch")

GUIDE = (pathlib.Path(__file__).parents[2] / "docs/guides/pytorch.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The first piece of code under a heading."""
    (found,) = re.findall(rf"^## {title}\n(?:.*?)^```(?:py|python)\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    return found


def scope_of(title: str) -> dict:
    scope = {"dnc": dnc, "torch": torch}
    exec(compile(section(title), title, "exec"), scope)
    return scope


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 4
    images = torch.randn(80, 12, generator=generator) + 3 * torch.eye(12)[labels]
    return images, labels


def test_the_trainer_callback_measures_the_evaluation_set(data):
    pytest.importorskip("transformers")
    images, labels = data
    callback = scope_of("Hugging Face Trainer")["Collapse"](4, lambda model, batch: model(batch["pixels"]))
    batches = [{"pixels": x, "labels": y} for x, y in zip(images.split(32), labels.split(32), strict=True)]
    for _ in range(2):  # each evaluation starts anew
        callback.on_evaluate(
            SimpleNamespace(device="cpu"),
            SimpleNamespace(global_step=1),
            None,
            model=torch.nn.Identity(),
            eval_dataloader=batches,
            metrics=(metrics := {}),
        )
        assert_same(callback.meter.compute(), images.numpy(), labels.numpy())
    assert set(metrics) == {f"eval_collapse/{name}" for name in ("cdnv", "directional_cdnv", "two_class_bound_5")}


def test_the_lightning_callback_logs_each_validation(data, tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.Linear(12, 12, bias=False)
            torch.nn.init.eye_(self.encoder.weight)

        def training_step(self, batch, index):
            return self.encoder(batch[0]).square().mean()

        def validation_step(self, batch, index):
            pass

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)  # features stay the images

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=32)
    callback = scope_of("Lightning")["Collapse"](4)
    trainer = lightning.Trainer(
        callbacks=[callback],
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Module(), loader, loader)
    assert_same(callback.meter.compute(), *(part.numpy() for part in data))
    assert trainer.callback_metrics["collapse/cdnv"] == pytest.approx(callback.meter.scalars()["cdnv"])
