from __future__ import annotations

import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.poses import Poses
from pose3d.render.colours import UNMATCHED, colour_of
from pose3d.render.moments import movie_fps, movie_rows, named_ids, row_of
from pose3d.render.text import text_width, write_text


def poses(**more: object) -> Poses:
    points = np.ones((3, 2, 2, 3))
    points[0, 1] = points[2, 0, 0] = np.nan
    return Poses(points, frame=np.array([4, 7, 9]), ids=np.array([[3, -1], [3, 8], [8, 3]]), **more)  # type: ignore[arg-type]


def test_the_row_of_a_frame_or_the_fullest() -> None:
    assert row_of(poses(), 9) == 2
    assert row_of(poses(), None) == 1
    assert row_of(Poses(np.ones((5, 1, 2, 3))), None) == 2, "the middle one of those that are as full"
    with pytest.raises(InputError, match="frame 5 is not in the poses, which have 4 to 9"):
        row_of(poses(), 5)


def test_rows_and_rate_of_a_movie() -> None:
    assert list(movie_rows(poses(), 2)) == [0, 2]
    with pytest.raises(InputError, match="every to be 1 or more, got 0"):
        movie_rows(poses(), 0)
    assert movie_fps(poses(fps=60.0), None, 4) == 15.0
    assert movie_fps(poses(fps=60.0), 10.0, 4) == 10.0
    assert movie_fps(poses(), None, 4) == 30.0


def test_everybody_has_a_name() -> None:
    assert named_ids(poses(names={8: "Ada", 11: "absent"})) == {3: "animal 3", 8: "Ada"}


def test_colours_are_constant_distinct_and_grey_for_nobody() -> None:
    colours = [colour_of(i) for i in range(7)]
    assert len(set(colours)) == 7
    assert colour_of(7) == colours[0]
    assert colours[0] == (230, 159, 0)
    assert colour_of(-1) == UNMATCHED
    assert len(set(UNMATCHED)) == 1


def test_colours_differ_for_the_colour_blind() -> None:
    """Vienot, Brettel & Mollon 1999: what a protanope and a deuteranope see of linear RGB; distances in that space."""
    rgb = np.array([colour_of(i) for i in range(6)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    for loss in (protan, deutan):
        seen = linear @ to_lms.T @ loss.T @ np.linalg.inv(to_lms).T
        apart = np.linalg.norm(seen[:, None] - seen, axis=-1)
        assert apart[~np.eye(6, dtype=bool)].min() > 0.05


def test_text_has_its_size_place_and_colour() -> None:
    image = np.zeros((60, 300, 3), dtype=np.uint8)
    end = write_text(image, "HEIT", 20, 40, 18, (200, 100, 50))
    rows, columns = np.nonzero(image.any(axis=2))
    assert rows.max() in (39, 40, 41)
    assert rows.max() - rows.min() + 1 == pytest.approx(18, abs=3)
    assert 18 <= columns.min() <= 24
    assert columns.max() <= end
    assert end == 20 + text_width("HEIT", 18)
    assert text_width("HEIT", 36) == pytest.approx(2 * text_width("HEIT", 18), rel=0.06)
    np.testing.assert_allclose(image[image.any(axis=2)].max(axis=0), (200, 100, 50), atol=8)
