"""The whole loop of learning from human preferences, in one tool."""

__version__ = "0.1.0"
