"""Best-fit packing by hand."""

import numpy as np

from topxgen.training.packing import best_fit


def test_each_text_goes_where_it_leaves_the_least_room():
    assert best_fit(np.array([5, 6, 4, 3, 1]), 10) == [[1, 2], [0, 3, 4]]
    assert best_fit(np.array([10]), 10) == [[0]]
    # 3 fits into both rows; the one with room for 3 is the fuller.
    assert best_fit(np.array([7, 5, 3]), 10) == [[0, 2], [1]]
