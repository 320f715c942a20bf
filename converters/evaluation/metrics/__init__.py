"""How good a model is, by task: each metric is fed one sample after the other and keeps no answer whole."""
