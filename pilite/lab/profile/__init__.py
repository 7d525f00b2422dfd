"""Where the time of a model goes: per operator, on a board or in `estimate`'s core models."""
