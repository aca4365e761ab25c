"""Other people's weights in our model, and ours in their formats."""
