"""The network: the guide's names, the textbook's equations."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.features import Floats32
from model.training.birnn import BiRNNModel


class GuideModel(nn.Module):
    """The guide's network as far as its weights go: a bidirectional RNN ``rnn`` and a layer ``linear``."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, 5, 2, batch_first=True, dropout=0.2, bidirectional=True)
        self.linear = nn.Linear(10, 1)

    def forward(self, x_BLF: Tensor) -> Tensor:
        state = torch.zeros(4, x_BLF.size(0), 5)
        y_BO: Tensor = self.linear(self.rnn(x_BLF, state)[0][:, -1, :])
        return y_BO


def test_weights_of_the_guides_class_load_and_give_its_numbers() -> None:
    torch.manual_seed(0)
    theirs, ours, x_BLF = GuideModel().eval(), BiRNNModel(3, 5, 1, 2, 0.2).eval(), torch.randn(4, 7, 3)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x_BLF), theirs(x_BLF))
    assert (ours.num_layers, ours.hidden_layer_size) == (2, 5)


def test_it_computes_the_textbooks_recurrence_and_reads_the_last_step() -> None:
    torch.manual_seed(1)
    model, x_BLF = BiRNNModel(3, 4, 2, 1, 0.0).eval(), torch.randn(1, 6, 3)
    w = {name: tensor.numpy() for name, tensor in model.state_dict().items()}

    def step(x: Floats32, h: Floats32, way: str) -> Floats32:
        inner = w[f"rnn.weight_ih_l0{way}"] @ x + w[f"rnn.bias_ih_l0{way}"]
        state: Floats32 = np.tanh(inner + w[f"rnn.weight_hh_l0{way}"] @ h + w[f"rnn.bias_hh_l0{way}"])
        return state

    forward: Floats32 = np.zeros(4, np.float32)
    for x in x_BLF[0].numpy():
        forward = step(x, forward, "")
    backward = step(x_BLF[0, -1].numpy(), np.zeros(4, np.float32), "_reverse")  # it has just begun there
    expected = w["linear.weight"] @ np.concatenate([forward, backward]) + w["linear.bias"]
    np.testing.assert_allclose(model(x_BLF)[0].detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 3])
def test_dropout_acts_in_training_alone(layers: int) -> None:
    model, x_BLF = BiRNNModel(3, 4, 2, layers, 0.5), torch.randn(2, 6, 3)
    model.eval()
    torch.testing.assert_close(model(x_BLF), model(x_BLF))
    model.train()
    assert torch.equal(model(x_BLF), model(x_BLF)) == (layers == 1)
