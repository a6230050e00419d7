"""Paths into a message: what they reach, what they make, and what they refuse."""

from __future__ import annotations

import click
import pytest

from pulpo_pool.cli import message_paths as paths


def message():
    return {"header": {}, "body": {"to": "a", "items": [{"n": 1}, 2], "a.b": {"c": 3}}}


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("body.to=b", {"to": "b"}),
        ("body.to=", {"to": ""}),
        ("body.to=a=b", {"to": "a=b"}),
        ("body.to=007", {"to": "007"}),
        ("body.to=7", {"to": 7}),
        ('body.to="7"', {"to": "7"}),
        ("body.to=null", {"to": None}),
        ("body.to=[1, {}]", {"to": [1, {}]}),
        ("body.to={oops", {"to": "{oops"}),
        ("body.items[0].n=5", {"items": [{"n": 5}, 2]}),
        ("body.items[2]=x", {"items": [{"n": 1}, 2, "x"]}),
        ('body["a.b"].c=5', {"a.b": {"c": 5}}),
        ("body.new.deep=true", {"new": {"deep": True}}),
    ],
)
def test_a_value_is_put(text, body):
    root = message()
    paths.put(root, *paths.parse_assignment(text))

    assert root["body"] == message()["body"] | body


def test_things_are_taken():
    root = message()
    for text in ("body.to", "body.items[0]", 'body["a.b"].c'):
        paths.take(root, paths.parse_path(text))

    assert root["body"] == {"items": [2], "a.b": {}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=5",
        "body",
        "body.=5",
        ".body=5",
        "body..to=5",
        "body[x]=5",
        "body[-1]=5",
        "[",
        "body[]=1",
    ],
)
def test_what_is_no_assignment(text):
    with pytest.raises(click.UsageError, match="expected PATH=VALUE"):
        paths.parse_assignment(text)


@pytest.mark.parametrize("text", ["", "body.", "body.to=5", "body[", 'body["x]'])
def test_what_is_no_path(text):
    with pytest.raises(click.UsageError, match="expected a path"):
        paths.parse_path(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("body.items[3]=x", r"body\.items\[3\]: the list has 2 entries"),
        ("body.items[9].n=x", r"body\.items\[9\]: the list has 2 entries"),
        ("body.items.n=x", "body.items.n: what is before the last step is not an object"),
        ("body.to[0]=x", "is not a list"),
        ("body.to.x=1", "is not an object"),
        ("body[0]=1", "is not a list"),
        ("[0]=1", "is not a list"),
    ],
)
def test_what_cannot_be_put(text, complaint):
    root = message()
    with pytest.raises(click.UsageError, match=complaint):
        paths.put(root, *paths.parse_assignment(text))

    assert root == message()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("body.nope", "body.nope: there is no such field"),
        ("body.nope.x", "body.nope: there is no such field"),
        ("body.items[2]", "the list has 2 entries"),
        ('body["a.b"].x', r'body\["a.b"\]\.x: there is no such field'),
    ],
)
def test_what_cannot_be_taken(text, complaint):
    root = message()
    with pytest.raises(click.UsageError, match=complaint):
        paths.take(root, paths.parse_path(text))

    assert root == message()
