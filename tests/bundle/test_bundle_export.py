"""Export: what ONNX Runtime answers is what torch answers, and equal weights give equal bytes."""

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from cellwright.bundle.export import export_onnx, open_session, parity, run_session
from cellwright.errors import BundleError
from models._contract import Problem


class Gru(nn.Module):
    """A GRU over three sites, scaled per site, NaN read as the site's mean: the shape of every forecaster, in ten lines."""

    def __init__(self, known: tuple[str, ...]) -> None:
        super().__init__()
        self.problem = Problem(
            history=6, horizon=3, cadence_s=600, inputs="site", nodes=1, outputs=1, features=("t",), targets=("t",), known=known
        )
        torch.manual_seed(0)
        self.gru, self.head = nn.GRU(1, 4, batch_first=True), nn.Linear(4, 3)
        self.calendar = nn.Linear(len(known), 3) if known else None
        self.register_buffer("mean", torch.tensor([10.0, 200.0, 3000.0]))

    def forward(self, history: Tensor, known: Tensor, site: Tensor) -> Tensor:
        mean = self.mean[site].view(-1, 1, 1, 1)
        hidden, _ = self.gru((torch.where(torch.isnan(history), mean, history) / mean - 1)[:, :, 0])
        y = self.head(hidden[:, -1]) + (self.calendar(known[:, -1]) if self.calendar else 0)
        return y.view(-1, 3, 1, 1, 1) * mean.unsqueeze(-1) + mean.unsqueeze(-1)


@pytest.fixture(scope="module")
def gru():
    return Gru(known=("hour_sin", "hour_cos"))


@pytest.fixture(scope="module")
def exported(gru, tmp_path_factory):
    return export_onnx(gru, tmp_path_factory.mktemp("onnx") / "model.onnx")


def sample(batch: int, known: int = 2):
    rng = np.random.default_rng(batch)
    history = rng.uniform(5, 20, (batch, 6, 1, 1)).astype(np.float32)
    history[0, 2:4] = np.nan
    return history, rng.uniform(-1, 1, (batch, 9, known)).astype(np.float32), np.arange(batch) % 3


def test_onnx_equals_torch_at_any_batch_with_gaps(gru, exported):
    assert parity(gru, exported, [sample(1), sample(5), sample(64)]) <= 1e-5


def test_names_and_shapes_are_those_that_edges_rely_on(exported):
    session = open_session(exported)
    assert {i.name: i.shape[1:] for i in session.get_inputs()} == {"history": [6, 1, 1], "known": [9, 2], "site": []}
    assert [o.name for o in session.get_outputs()] == ["forecast"]
    assert run_session(session, *sample(4)).shape == (4, 3, 1, 1, 1)


def test_equal_weights_give_equal_bytes_that_name_no_folder(gru, exported, tmp_path, capfd):
    again = export_onnx(gru, tmp_path / "again.onnx")
    assert again.read_bytes() == exported.read_bytes()
    assert b"/bundle/" not in again.read_bytes()
    assert capfd.readouterr() == ("", "")


def test_a_network_that_reads_no_calendar_exports_too(tmp_path):
    bare = Gru(known=())
    path = export_onnx(bare, tmp_path / "bare.onnx")
    assert parity(bare, path, [sample(3, known=0)]) <= 1e-5


def test_a_model_that_differs_is_refused(gru, exported, tmp_path):
    model = onnx.load(exported)
    head = next(i for i in model.graph.initializer if i.name.endswith("head.bias"))
    head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) + np.float32(0.01), head.name))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(BundleError, match=r"differs from torch by .* at most 1e-04"):
        parity(gru, tmp_path / "other.onnx", [sample(2)])


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"cannot load .*model\.onnx"):
        open_session(tmp_path / "model.onnx")
