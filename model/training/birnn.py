"""The BiRNN of the guide this project descends from, and a panel's network: several BiRNNs and a linear path."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.features import Floats32
from model.network import Network
from model.training.config import Cell

CELLS: dict[str, type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


# Shapes: B batch, L lookback, F features, H hidden units per direction, O outputs (heads).
class BiRNNModel(nn.Module):
    """Bidirectional RNN over a past window. Reading it backwards leaks nothing: the target lies after its end.

    Class name, constructor and parameter names (``rnn.*``, ``linear.*``) are the guide's, so that weights trained
    by its class load here. The guide's cell is the simple one; ``cell`` chooses a gated cell instead.

    Source: Schuster and Paliwal, IEEE Trans. Signal Processing 45(11), 1997.
    """

    def __init__(
        self,
        input_size: int,
        hidden_layer_size: int,
        output_size: int,
        num_layers: int,
        dropout: float,
        cell: Cell = "rnn",
    ) -> None:
        super().__init__()
        self.hidden_layer_size = hidden_layer_size
        self.num_layers = num_layers
        self.rnn = CELLS[cell](
            input_size,
            hidden_layer_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,  # torch warns of dropout that has no layer to follow
            bidirectional=True,
        )
        self.linear = nn.Linear(2 * hidden_layer_size, output_size)

    def leave_out(self, features_F: Tensor) -> None:
        """Set the input weights of some features to 0, so that these features change no output.

        Args:
            features_F: True for the features to leave out.
        """
        with torch.no_grad():
            for name, weight in self.rnn.named_parameters():
                if name in {"weight_ih_l0", "weight_ih_l0_reverse"}:
                    weight[:, features_F] = 0.0

    def forward(self, x_BLF: Tensor) -> Tensor:
        """Features ``(B, L, F)`` to ``(B, O)`` targets in units of each window's scale; 0 is the present state."""
        out_BL2H, _ = self.rnn(x_BLF)  # no h0: torch starts both directions at zero
        y_BO: Tensor = self.linear(out_BL2H[:, -1])  # (B, 2H) -> (B, O)
        return y_BO


class PanelNetwork(nn.Module):
    """The mean of networks that differ in their seeds, plus a linear path from the newest feature row.

    ``members`` are trained one after the other; ``path`` is fitted before them and is not trained.
    """

    def __init__(self, members: Sequence[BiRNNModel], path_OF: Tensor | None = None) -> None:
        """
        Args:
            members: at least one network, all of equal input and output size.
            path_OF: ``(O, F)`` weights of the linear path; None for no path.
        """
        super().__init__()
        self.members = nn.ModuleList(members)
        outputs, features = members[0].linear.out_features, members[0].rnn.input_size
        self.register_buffer("path", torch.zeros(outputs, features) if path_OF is None else path_OF)
        self.path: Tensor

    @property
    def input_size(self) -> int:
        """Features of a row."""
        return int(self.path.shape[1])

    def forward(self, x_BLF: Tensor) -> Tensor:
        """Features ``(B, L, F)`` to ``(B, O)`` targets in units of each window's scale; 0 is the present state."""
        y_BO: Tensor = self.members[0](x_BLF)
        for member in self.members[1:]:
            y_BO = y_BO + member(x_BLF)
        return y_BO / len(self.members) + x_BLF[:, -1] @ self.path.T

    def named_weights(self) -> dict[str, Tensor]:
        """All weights by name: the guide's names, prefixed ``memberK.`` from the second member on, and ``path``."""
        first, *more = (member.state_dict() for member in self.members)
        named = {f"member{k}.{name}": tensor for k, state in enumerate(more, 2) for name, tensor in state.items()}
        return {**first, **named, "path": self.path}


def torch_network(model: BiRNNModel | PanelNetwork) -> Network:
    """The model as a function of arrays, without gradients or dropout."""

    def network(x_BLF: Floats32) -> Floats32:
        model.eval()
        with torch.no_grad():
            y_BO: Floats32 = model(torch.from_numpy(x_BLF)).numpy()
        return y_BO

    return network
