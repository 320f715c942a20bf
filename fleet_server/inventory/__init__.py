"""Which devices exist, what they are and what they last reported."""
