"""How sure a number is: resampling, nulls, intervals, equivalence, replicate designs."""
