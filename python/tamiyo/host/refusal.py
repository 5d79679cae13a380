"""The answer to a decision that is not applied."""

__all__ = ["Refusal"]


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """Why a decision is not applied."""
