"""What we expect: features, the BiRNN, its training, judgement and registry."""
