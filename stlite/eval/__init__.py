"""How good a model is; every function takes the model as a function."""
