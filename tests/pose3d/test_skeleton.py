from __future__ import annotations

import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.skeleton import Skeleton

FACE = Skeleton(("nose", "eye_left", "eye_right"), edges=((0, 1), (0, 2)), symmetry=((1, 2),))


def test_index_and_pairs_by_name() -> None:
    assert FACE.index("eye_right") == 2
    assert FACE.pairs_by_name([("eye_right", "nose")]) == ((2, 0),)
    assert len(FACE) == 3


def test_unknown_keypoint_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'eye_left'"):
        FACE.index("eye_lef")


def test_flip_order_exchanges_partners_and_is_its_own_inverse() -> None:
    np.testing.assert_array_equal(FACE.flip_order(), [0, 2, 1])
    np.testing.assert_array_equal(FACE.flip_order()[FACE.flip_order()], np.arange(3))


@pytest.mark.parametrize("pair", [(0, 3), (-1, 0), (1, 1)])
@pytest.mark.parametrize("what", ["edges", "bones", "symmetry"])
def test_pairs_must_be_two_different_keypoints(what: str, pair: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=what):
        Skeleton(FACE.keypoints, **{what: (pair,)})


def test_names_must_differ_and_sigmas_must_fit() -> None:
    with pytest.raises(InputError, match=r"nose more than once"):
        Skeleton(("nose", "nose", "tail"))
    with pytest.raises(InputError, match="expected 3 sigmas"):
        Skeleton(FACE.keypoints, sigmas=(0.1, 0.2))
    assert Skeleton(FACE.keypoints, sigmas=[1, 2, 3]).sigmas == (1.0, 2.0, 3.0)
