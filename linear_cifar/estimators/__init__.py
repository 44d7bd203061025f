"""The exact optimum as scikit-learn estimators; they need the extra `sklearn`.

Two classifiers with scikit-learn's methods and attributes, for its pipelines and searches, and with
a certificate of what was reached. The cost is that of the rest of the library,

    J = Σᵢ wᵢ l(sᵢ, yᵢ) / Σᵢ wᵢ + λ‖W‖²,

with the weights w of examples, 1 unless given: without ½ and without the bias, and with the
features as they come. `StandardScaler` in a pipeline standardises them.

λ is per example, and scikit-learn's C is of a sum. With n = Σᵢ wᵢ the same problem has

    C = 1/(2λn)      softmax of three classes or more
    C = 1/(λn)       softmax of two classes, of which scikit-learn has one vector
    C = 1/(2λnK)     multi_bce, in OneVsRestClassifier; K is 2 for two classes too

which `linear_cifar.lam_of` and `elsewhere` compute. The weights of classes are in n too; with
"balanced", where scikit-learn's have a mean of 1, n is as without them.
"""

from linear_cifar.estimators.probe import LinearProbe as LinearProbe
from linear_cifar.estimators.probe_cv import LinearProbeCV as LinearProbeCV
