"""The original's `activations`: records of activations, and files of them."""

__all__: list[str] = []
