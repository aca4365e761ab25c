"""What is read of the exercises without running them is what they say."""

import pytest

from lib.exercises.exercise import exercises, lessons
from lib.exercises.outline import Entry, outline


@pytest.mark.parametrize("lesson", lessons())
def test_the_outline_is_the_exercises(lesson):
    fields = tuple(Entry.__dataclass_fields__)
    assert [tuple(getattr(e, name) for name in fields) for e in outline(lesson)] == [
        tuple(getattr(e, name) for name in fields) for e in exercises(lesson)]  # fmt: skip


def test_a_lesson_without_exercises():
    assert outline("77") == []
