"""Linear predictive control as a network: explicit laws, their exact form in layers, what is learnt beside them."""
