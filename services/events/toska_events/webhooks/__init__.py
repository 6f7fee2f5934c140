"""Events POSTed to where somebody asked for them."""
