"""World, gather with true gradient, sums of gradients, balancing, a harness for ranks."""

from .balance import deal, imbalance
from .gather import all_gather_rows, broadcast_object, max_over_ranks, sum_over_ranks
from .reduction import GradientSum
from .world import World, chosen_device, explain_lost_ranks, joined_world
