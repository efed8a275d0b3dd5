"""What counts as an alpha model, and what is said about the rest."""

from __future__ import annotations

import re

import pytest

from sage.models.alpha import WINDOW_BARS, AlphaView, LearningAlpha, Outcome, problem_with_alpha
from sage.models.forecast import ForecastAlpha


class Plain:
    name = "plain"
    min_bars = 2
    needs_model = False

    def vote(self, view: AlphaView) -> float:
        return 0.0


class Learner(Plain):
    def learn(self, outcome: Outcome) -> None:
        pass


def test_what_has_the_protocol_is_an_alpha() -> None:
    for alpha in (Plain(), Learner(), ForecastAlpha(4.0)):
        assert problem_with_alpha(alpha) is None
    assert isinstance(Learner(), LearningAlpha)
    assert not isinstance(Plain(), LearningAlpha)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, r"Odd\.name must be a text, not 3"),
        ({"name": " "}, r"Odd\.name is empty"),
        ({"min_bars": 0}, r"min_bars is 0; it must lie between 1 and"),
        ({"min_bars": WINDOW_BARS + 1}, "the bars an alpha is shown"),
        ({"min_bars": True}, "must be a number of bars, not True"),
        ({"needs_model": 1}, "must be True or False, not 1"),
        ({"vote": 0.5}, r"no method `vote\(view\) -> float`"),
        ({"vote": lambda self: 0.0}, "vote must be a method that takes one argument"),
        ({"vote": lambda self, view, more: 0.0}, "vote must be a method that takes one argument"),
        ({"learn": lambda self: None}, r"learn must be a method that takes one argument, `learn\(outcome\)`"),
        ({"learn": 7}, r"learn must be a method"),
    ],
)
def test_what_lacks_it_is_told_what_is_wrong(changes: dict[str, object], message: str) -> None:
    problem = problem_with_alpha(type("Odd", (Plain,), changes)())
    assert problem is not None
    assert re.search(message, problem), problem


def test_a_missing_attribute_a_class_and_a_coroutine_are_refused() -> None:
    async def vote(self: object, view: AlphaView) -> float:
        return 0.0

    assert "no `name`" in str(problem_with_alpha(object()))
    assert "is a class" in str(problem_with_alpha(Plain))
    assert "vote must be a method" in str(problem_with_alpha(type("Async", (Plain,), {"vote": vote})()))
