"""One look into a running model: a page that computes it itself, and a server with the real model behind the page."""
