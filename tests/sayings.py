"""Small messages for tests of adapters, which know no handlers: what is said is the text."""

from __future__ import annotations

import time

from pulpo_pool.message import Message


def say(text, **fields):
    message = Message(request_type="say", body={"text": text}, **fields)
    return message.stamped(id=f"id-{text}", queue=message.queue, published_at=time.time())


def said(reservation):
    return reservation and reservation.message.body["text"]
