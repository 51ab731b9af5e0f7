"""The original's `explanations`: simulators, their calibration, and scores."""

__all__: list[str] = []
