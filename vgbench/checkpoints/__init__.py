"""Other people's weights: safe reading, and loading through tables of names."""
