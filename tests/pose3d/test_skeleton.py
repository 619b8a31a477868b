from __future__ import annotations

import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.skeleton import Skeleton, symmetry_by_name

FACE = Skeleton(("nose", "eye_left", "eye_right"), edges=((0, 1), (0, 2)), symmetry=((1, 2),))


def test_index_and_pairs_by_name() -> None:
    assert FACE.index("eye_right") == 2
    assert FACE.pairs_by_name([("eye_right", "nose")]) == ((2, 0),)
    assert len(FACE) == 3


def test_unknown_keypoint_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'eye_left'"):
        FACE.index("eye_lef")


@pytest.mark.parametrize(
    ("keypoints", "pairs"),
    [
        (("nose", "wingL", "wingR", "forelegR4", "forelegL4"), ((1, 2), (4, 3))),
        (("left_ear", "right_ear", "Left Paw", "Right Paw", "LEFT", "RIGHT"), ((0, 1), (2, 3), (4, 5))),
        (("l-paw", "r-paw", "paw.l", "paw.r", "lear", "rear"), ((0, 1), (2, 3))),
        (("Lear_L", "Lear_R", "Rear_L"), ()),  # whose partner is Lear_L?
        (("tail", "tair", "LL", "leftover"), ()),
    ],
)
def test_sides_are_known_by_their_names(keypoints: tuple[str, ...], pairs: tuple[tuple[int, int], ...]) -> None:
    assert symmetry_by_name(keypoints) == pairs


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
