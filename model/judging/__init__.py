"""How forecasts are scored and compared: losses on rows that no compared network has seen."""
