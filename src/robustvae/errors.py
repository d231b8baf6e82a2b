"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """One line for the user: the place, the value, what is allowed, what to do."""
