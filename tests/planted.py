"""The planted networks, by the name that tests know them by."""

from patchclamp.papers.planted import *  # noqa: F403
