"""The process that answers the offchain node: one decimal per question."""
