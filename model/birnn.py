"""The network of the guide this project descends from: a bidirectional RNN and a linear layer on its last step."""

from torch import Tensor, nn


# Shapes: B batch, L lookback, F features, H hidden units per direction, O outputs (heads).
class BiRNNModel(nn.Module):
    """Bidirectional RNN over a past window. Reading it backwards leaks nothing: the target lies after its end.

    Class name, constructor and parameter names (``rnn.*``, ``linear.*``) are the guide's, so that weights trained
    by its class load into this one.

    Source: Schuster and Paliwal, IEEE Trans. Signal Processing 45(11), 1997.
    """

    def __init__(
        self, input_size: int, hidden_layer_size: int, output_size: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.hidden_layer_size = hidden_layer_size
        self.num_layers = num_layers
        self.rnn = nn.RNN(
            input_size,
            hidden_layer_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,  # torch warns of dropout that has no layer to follow
            bidirectional=True,
        )
        self.linear = nn.Linear(2 * hidden_layer_size, output_size)

    def forward(self, x_BLF: Tensor) -> Tensor:
        """Features ``(B, L, F)`` to ``(B, O)`` targets in units of each window's scale; 0 is the present state."""
        out_BL2H, _ = self.rnn(x_BLF)  # no h0: torch starts both directions at zero
        y_BO: Tensor = self.linear(out_BL2H[:, -1])  # (B, 2H) -> (B, O)
        return y_BO
