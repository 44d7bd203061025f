"""Figures from arrays, drawn with matplotlib outside pyplot.

Every function takes arrays and returns the `Figure`, which the caller saves. `title` goes above the
panels. `ax`, which only functions of one panel have, are the axes to draw into; without them the
function makes a new figure. A function of several panels always makes one.

The parts that figures share are here for your own: `new_figure`, `label_axes`, `scale_lam` and
`weight_images`.
"""

from linear_cifar.plots.classification import (
    plot_confusion as plot_confusion,
    plot_per_class as plot_per_class,
    plot_reliability as plot_reliability,
)
from linear_cifar.plots.curves import plot_history as plot_history, plot_path as plot_path
from linear_cifar.plots.images import (
    plot_grid as plot_grid,
    plot_weights as plot_weights,
    weight_images as weight_images,
)
from linear_cifar.plots.panels import (
    Curve as Curve,
    label_axes as label_axes,
    new_figure as new_figure,
    scale_lam as scale_lam,
)
