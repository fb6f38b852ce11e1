"""Decision trees: ai.onnx.ml TreeEnsemble (version 5). All rows walk down all trees together, one level at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.ml import transformed

Array = np.ndarray[Any, Any]

_COMPARISONS = {0: np.less_equal, 1: np.less, 2: np.greater_equal, 3: np.greater, 4: np.equal, 5: np.not_equal}
_MEMBER = 6
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_AVERAGE, _SUM, _MIN, _MAX = range(4)


def tree_ensemble(
    x: Array, tree_roots: Array, nodes_featureids: Array, nodes_modes: Array, nodes_splits: Array,
    nodes_truenodeids: Array, nodes_trueleafs: Array, nodes_falsenodeids: Array, nodes_falseleafs: Array,
    leaf_targetids: Array, leaf_weights: Array, nodes_missing_value_tracks_true: Array | None = None,
    membership_values: Array | None = None, /, *, n_targets: int, aggregate_function: int = 1, post_transform: int = 0,
) -> Array:  # fmt: skip
    """The aggregated leaf weights of the trees for rows x [N, F]: [N, n_targets], in the type of x.

    At node k a row turns to its true branch where `x[nodes_featureids[k]] <mode k> nodes_splits[k]` (modes 0..5 are
    <= < >= > == !=, 6 is membership in the next NaN-delimited set of membership_values), or where x is NaN and
    nodes_missing_value_tracks_true is set. Branches lead to nodes, or to leaves where nodes_*leafs is set.
    aggregate_function: 0 average over trees, 1 sum, 2 min, 3 max; targets without a leaf are 0. post_transform: 0 none,
    1 softmax, 2 logistic, 3 softmax of the non-zero. All tables are vectors. Raises ValueError for indices that lead
    nowhere or in circles.
    """
    if not 0 <= aggregate_function <= _MAX or not 0 <= post_transform < len(_TRANSFORMS):
        raise ValueError(f"tree_ensemble: no aggregation {aggregate_function} or transform {post_transform}")
    compute = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
    values, modes = x.astype(compute, copy=False), nodes_modes.astype(np.int64)
    features = _checked(nodes_featureids, x.shape[1], "nodes_featureids")
    splits = nodes_splits.astype(compute)
    # A branch is a node k as k and a leaf k as ~k.
    yes = _branches(nodes_truenodeids, nodes_trueleafs, len(modes), len(leaf_weights))
    no = _branches(nodes_falsenodeids, nodes_falseleafs, len(modes), len(leaf_weights))
    tracks = np.zeros(len(modes), np.bool_)
    if nodes_missing_value_tracks_true is not None:
        tracks = nodes_missing_value_tracks_true.astype(np.bool_)
    if not len(features) == len(splits) == len(tracks) == len(modes):
        raise ValueError(f"tree_ensemble: the nodes_* tables must all have {len(modes)} entries")
    sets = _sets(membership_values, modes, compute)
    at = np.broadcast_to(_checked(tree_roots, len(modes), "tree_roots"), (x.shape[0], len(tree_roots))).copy()
    rows = np.arange(x.shape[0])[:, None]
    for _ in range(len(modes)):
        inner = at >= 0
        if not inner.any():
            break
        node = np.where(inner, at, 0)
        value = values[rows, features[node]]
        turn = _decisions(value, modes[node], splits[node], sets, node) | (tracks[node] & np.isnan(value))
        at = np.where(inner, np.where(turn, yes[node], no[node]), at)
    if (at >= 0).any():
        raise ValueError("tree_ensemble: a tree leads in a circle")
    targets = _checked(leaf_targetids, n_targets, "leaf_targetids")
    scores = _aggregated(~at, targets, leaf_weights.astype(compute), n_targets, aggregate_function)
    return transformed(scores, _TRANSFORMS[post_transform]).astype(x.dtype, copy=False)


def _checked(indices: Array, count: int, name: str) -> Array:
    if indices.size and not 0 <= indices.min() <= indices.max() < count:
        raise ValueError(f"tree_ensemble: {name} must lie in [0, {count}), got {indices.min()} to {indices.max()}")
    return indices


def _branches(ids: Array, leafs: Array, nodes: int, leaves: int) -> Array:
    leaf = leafs.astype(np.bool_)
    bound = np.where(leaf, leaves, nodes)
    if ids.shape != (nodes,) or leaf.shape != (nodes,) or (ids < 0).any() or (ids >= bound).any():
        raise ValueError("tree_ensemble: a branch leads to a node or leaf that is not there")
    return np.where(leaf, ~ids, ids)


def _sets(membership: Array | None, modes: Array, compute: np.dtype[Any]) -> Array:
    """[nodes, largest set]: the members of each membership node, padded with NaN, which equals nothing."""
    places = np.flatnonzero(modes == _MEMBER)
    if not len(places):
        return np.empty((len(modes), 0), compute)
    members = np.zeros(0, compute) if membership is None else membership.astype(compute)
    groups = np.split(members, np.flatnonzero(np.isnan(members)) + 1)
    if len(places) > len(groups):
        raise ValueError(f"tree_ensemble: {len(places)} membership nodes, but {len(groups)} sets of values")
    table = np.full((len(modes), max(map(len, groups))), np.nan, compute)
    for place, group in zip(places, groups, strict=False):
        table[place, : len(group)] = group
    return table


def _decisions(value: Array, mode: Array, split: Array, sets: Array, node: Array) -> Array:
    turn = np.zeros(value.shape, np.bool_)
    for number in np.unique(mode).tolist():
        here = mode == number
        if number == _MEMBER:
            turn[here] = (sets[node[here]] == value[here][:, None]).any(axis=-1)
        elif number in _COMPARISONS:
            turn[here] = _COMPARISONS[number](value[here], split[here])
        else:
            raise ValueError(f"tree_ensemble: nodes_modes must lie in [0, 6], got {number}")
    return turn


def _aggregated(leaf: Array, targets: Array, weights: Array, n_targets: int, function: int) -> Array:
    """Scores [N, n_targets] from the leaf [N, trees] that each row reached in each tree."""
    scores = np.zeros((leaf.shape[0], n_targets), weights.dtype)
    place = (np.arange(leaf.shape[0])[:, None], targets[leaf])
    if function in (_SUM, _AVERAGE):
        np.add.at(scores, place, weights[leaf])
        return scores / max(leaf.shape[1], 1) if function == _AVERAGE else scores
    fold, start = (np.minimum, np.inf) if function == _MIN else (np.maximum, -np.inf)
    scores.fill(start)
    fold.at(scores, place, weights[leaf])
    reached = np.zeros(scores.shape, np.bool_)
    reached[place] = True
    return np.where(reached, scores, 0).astype(weights.dtype, copy=False)
