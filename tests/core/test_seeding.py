import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cereals_core.seeding import rng

streams = st.tuples(st.integers(0, 3), st.lists(st.sampled_from([0, 1, 10, "", "1", "a", "é"]), max_size=3).map(tuple))


def draw(stream: tuple[int, tuple[str | int, ...]]) -> list[int]:
    seed, key = stream
    return rng(seed, *key).integers(0, 2**62, 4).tolist()


def test_the_stream_is_the_same_on_every_machine() -> None:
    assert rng(0, "info-map", 3, "aachen_000000").integers(0, 1000, 5).tolist() == [327, 373, 866, 126, 340]


def test_neighbouring_keys_have_streams_of_their_own() -> None:
    keys = [(), (1,), ("1",), (1, 1), (11,), ("a", "b"), ("ab",), ("b", "a")]
    near = [(seed, key) for seed in (0, 1) for key in keys]
    assert len({tuple(draw(stream)) for stream in near}) == len(near)


def test_a_numpy_integer_is_the_integer_it_holds() -> None:
    assert rng(np.int64(7), "x", np.int32(3)).random() == rng(7, "x", 3).random()


@given(streams, streams)
def test_streams_are_equal_exactly_where_seed_and_key_are(
    first: tuple[int, tuple[str | int, ...]], second: tuple[int, tuple[str | int, ...]]
) -> None:
    assert draw(first) == draw(first)
    assert (draw(first) == draw(second)) == (first == second)
