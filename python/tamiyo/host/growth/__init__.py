"""Growing that earns its place: how new units begin, and where a layer needs more of them."""
