"""The exact optimum as scikit-learn estimators; they need the extra `sklearn`.

`LinearProbe` solves one λ, with a certificate. To choose λ use `LinearProbeCV`, which solves all λ
and folds together, and not `GridSearchCV` over `LinearProbe`. The cost is the library's,

    J = Σᵢ wᵢ l(sᵢ, yᵢ) / Σᵢ wᵢ + λ‖W‖²,

with weights w of the examples, all 1 by default, and without ½ and the bias. Features aren't
standardised; put `StandardScaler` before the estimator in a pipeline if they should be.

λ is per example, while scikit-learn's C belongs to a sum. With n = Σᵢ wᵢ the same problem has

    C = 1/(2λn)      softmax with three or more classes
    C = 1/(λn)       softmax with two classes, for which scikit-learn has one vector
    C = 1/(2λnK)     multi_bce, in OneVsRestClassifier; K is 2 for two classes too
    C = 1/(2λnₜ)     targets, in OneVsRestClassifier; nₜ is n over the examples with a known label

If y is a matrix of T binary targets, each target has its own J, with binary cross-entropy as l.

`linear_cifar.lam_to` and `linear_cifar.lam_from` convert them. w and n include the weights of
classes; only with "balanced" n doesn't, because scikit-learn scales those to a mean of 1.
"""

from linear_cifar.estimators.probe import LinearProbe as LinearProbe
from linear_cifar.estimators.probe_cv import LinearProbeCV as LinearProbeCV
