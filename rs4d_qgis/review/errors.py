"""Why something on the desk cannot be done."""


class ReviewRefused(Exception):
    """It cannot be done with this layer. The message is one line, fit to show to a user: what is wrong, what to do."""
