"""The work that every measured system does is the same size and counts its effects."""

from __future__ import annotations

import pytest

from bench.model import (
    FILL_BYTES,
    Book,
    Lookup,
    Op,
    Position,
    decode_position,
    encode_position,
    encode_request,
    make_fill,
)


@pytest.mark.parametrize("request_id", [1, 99, (3 << 40) + 123_456])
@pytest.mark.parametrize("quantity", [1, -499])
def test_a_fill_is_256_bytes_whatever_its_numbers(request_id: int, quantity: int) -> None:
    fill = make_fill(request_id, "ACC-0001", quantity, 512_345)

    assert len(encode_request(fill)) == FILL_BYTES


def test_a_reply_is_about_100_bytes() -> None:
    position = Position(
        id=(1 << 40) + 77, account="ACC-0001", quantity=-123, count=1234, digest=(1 << 61) - 2
    )

    assert 90 <= len(encode_position(position)) <= 110


def test_a_book_counts_fills_orders_and_answers_queries_with_the_request_id() -> None:
    book = Book()
    book.serve(Op.FILL, encode_request(make_fill(1, "A", 10, 5)))
    book.serve(Op.FILL, encode_request(make_fill(2, "A", -3, 5)))
    order = decode_position(book.serve(Op.ORDER, encode_request(make_fill(3, "B", 4, 5))))
    read = decode_position(book.serve(Op.QUERY, encode_request(Lookup(id=4, account="A"))))

    assert (read.id, read.count, read.quantity, read.digest) == (4, 2, 7, 5)
    assert order.id == 3
    assert (book.orders.count, book.orders.quantity) == (1, 4)
    assert "B" not in book.positions
