"""Measures that look inside IMP: functions of weights, masks and data, and of nothing else.

A state is a mapping from names to tensors. Measures of weights look at those that the mask names,
in float64. A result is a frozen dataclass, whose ``plain()`` has its numbers as JSON values. What
is not defined, or could not be measured, is not a number (None in JSON), and never 0.
"""

from elth.analysis.barriers import Barriers, barrier
from elth.analysis.curvature import (
    Curvature,
    Hessian,
    PowerStep,
    hessian,
    power_steps,
    subspace_curvature,
    trace_probes,
)
from elth.analysis.distances import (
    Distance,
    Distances,
    angular,
    cosine_similarity,
    distance,
    distance_matrices,
    l2_full,
    l2_shared,
)
from elth.analysis.effective import Effective, EffectiveLayer, effective_sparsity
from elth.analysis.evaluator import Evaluator, NotMeasurableError, Score
from elth.analysis.functions import (
    FunctionDistance,
    ProjectionDamage,
    function_distance,
    projection_damage,
)
from elth.analysis.histograms import Histogram, bimodality, histogram, layer_histograms
from elth.analysis.measuring import Subject, measure
from elth.analysis.overlap import Overlap, Overlaps, mask_overlap
from elth.analysis.paths import Curve, Point, along, interpolate
from elth.analysis.projection import Removed, norm_removed
from elth.analysis.signs import SignAgreement, Signs, sign_agreement
from elth.analysis.thresholds import Threshold, pruning_threshold
from elth.analysis.travel import Travel, distance_travelled, similarity_to_end
from elth.measures import MEASURES, abscissae, by_round, numbers

__all__ = [
    "MEASURES",
    "Barriers",
    "Curvature",
    "Curve",
    "Distance",
    "Distances",
    "Effective",
    "EffectiveLayer",
    "Evaluator",
    "FunctionDistance",
    "Hessian",
    "Histogram",
    "NotMeasurableError",
    "Overlap",
    "Overlaps",
    "Point",
    "PowerStep",
    "ProjectionDamage",
    "Removed",
    "Score",
    "SignAgreement",
    "Signs",
    "Subject",
    "Threshold",
    "Travel",
    "abscissae",
    "along",
    "angular",
    "barrier",
    "bimodality",
    "by_round",
    "cosine_similarity",
    "distance",
    "distance_matrices",
    "distance_travelled",
    "effective_sparsity",
    "function_distance",
    "hessian",
    "histogram",
    "interpolate",
    "l2_full",
    "l2_shared",
    "layer_histograms",
    "mask_overlap",
    "measure",
    "norm_removed",
    "numbers",
    "power_steps",
    "projection_damage",
    "pruning_threshold",
    "sign_agreement",
    "similarity_to_end",
    "subspace_curvature",
    "trace_probes",
]
