"""Where the simulated exchange's candles come from: invented, recorded, or given by a test."""
