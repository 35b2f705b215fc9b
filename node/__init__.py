"""The official offchain node's contract: its config.json, its rules by version, its decimals, its questions."""
