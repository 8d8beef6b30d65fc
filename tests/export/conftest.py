"""What the tests of exports share with those of training."""

from tests.train.conftest import brief_sound, one_thread

__all__ = ["brief_sound", "one_thread"]
